"""Files of torch.save and safetensors, read without running code in them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from defenses.utils.errors import UserError

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
_PREFIXES = ("module.", "_orig_mod.", "model.")
_DEPTH = 4


def read_torch(file: Path) -> object:
    """Return the content of a file of `torch.save`: tensors, plain values, lists and dicts of these.

    Raises:
        UserError: the file is missing, damaged, or holds anything else.
    """
    if not file.is_file():
        raise UserError(f"there is no file {file}; download it first")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle's protocol
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise many types of errors
        reason = type(error).__name__
        raise UserError(
            f"{file} cannot be read safely ({reason}): it is damaged, or holds more than tensors and plain values"
        ) from None


def tensors_of(content: object, file: Path) -> dict[str, Tensor]:
    """Return a state dict, taken out of its wrappers, without prefixes that all its names have.

    Wrappers are dicts with the state dict under "state_dict", "model_state_dict", "model" or "net", nested or not;
    prefixes those of DataParallel ("module."), torch.compile ("_orig_mod.") and a module around the network ("model."),
    once or more.

    Args:
        content: of the file, or its part with the state dict.
        file: for messages.

    Raises:
        UserError: the content is anything else than tensors by name; several wrappers beside each other hold tensors,
            or two names are one without prefixes.
    """
    content = _unwrapped(content, file)
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"{file} holds no tensors by name but {type(content).__name__}")
    for key, value in content.items():
        if not isinstance(value, Tensor):
            raise UserError(f'{file}: "{key}" is no tensor but {type(value).__name__}; give the state dict alone')
    return _without_prefixes({str(name): value for name, value in content.items()}, file)


def _unwrapped(content: object, file: Path) -> object:
    """Return what the wrappers hold; at most `_DEPTH` of them, since a dict of a file can hold itself."""
    for _ in range(_DEPTH):
        if not isinstance(content, Mapping):
            break
        inside = [k for k in _WRAPPERS if isinstance(content.get(k), Mapping)]
        full = [k for k in inside if _holds_tensors(content[k], _DEPTH)]
        if len(full) > 1:
            raise UserError(f'{file} holds tensors under "{full[0]}" and "{full[1]}"; give one state dict alone')
        content = next((content[k] for k in full or inside), content)
    return content


def _holds_tensors(content: Mapping[object, object], depth: int) -> bool:
    """Return True if there is a tensor in a dict, or in wrappers inside it."""
    if any(isinstance(value, Tensor) for value in content.values()):
        return True
    inside = [value for k in _WRAPPERS if isinstance(value := content.get(k), Mapping)]
    return depth > 0 and any(_holds_tensors(value, depth - 1) for value in inside)


def _without_prefixes(tensors: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """Remove prefixes that all names have; counters beside the network, the only integers, may lack them."""
    floats = [name for name, value in tensors.items() if value.is_floating_point()]
    while floats and (prefix := next((p for p in _PREFIXES if all(n.startswith(p) for n in floats)), "")):
        if twice := next((name for name in tensors if prefix + name in tensors), ""):
            raise UserError(f'{file} has tensors "{twice}" and "{prefix}{twice}"; remove one of them')
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
        floats = [name.removeprefix(prefix) for name in floats]
    return tensors


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name: of safetensors, or of `torch.save` in a layout of `tensors_of`.

    Raises:
        UserError: the file is missing or damaged, or holds no tensors by name.
    """
    if file.suffix != ".safetensors" or not file.is_file():
        return tensors_of(read_torch(file), file)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return tensors_of(load_file(file), file)
    except SafetensorError as error:
        raise UserError(f"{file} is no safetensors file ({error})") from None
