"""Files of torch.save and safetensors, read without running code in them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from defenses.utils.errors import UserError


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
    """Return a state dict without the prefix of DataParallel.

    Args:
        content: of the file, or its part with the state dict.
        file: for messages.

    Raises:
        UserError: the content is anything else than tensors by name.
    """
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"{file} holds no tensors by name but {type(content).__name__}")
    for key, value in content.items():
        if not isinstance(value, Tensor):
            raise UserError(f'{file}: "{key}" is no tensor but {type(value).__name__}; give the state dict alone')
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name: of safetensors, of a state dict, or of one under "state_dict".

    Raises:
        UserError: the file is missing or damaged, or holds no tensors by name.
    """
    if file.suffix != ".safetensors" or not file.is_file():
        content = read_torch(file)
        inner = content.get("state_dict", content) if isinstance(content, Mapping) else content
        return tensors_of(inner, file)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return tensors_of(load_file(file), file)
    except SafetensorError as error:
        raise UserError(f"{file} is no safetensors file ({error})") from None
