"""Checks of weights: a network against a data set, tensors against a network.

Torch is imported only with tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from defenses.data.dataset import NAMES, dataset_info
from defenses.networks.registry import data_args
from defenses.utils.errors import UserError
from defenses.utils.json_values import JsonView

if TYPE_CHECKING:
    from torch import Tensor, nn


def check_data(path: Path, kind: str, args: JsonView, dataset: str, data_root: Path | str | None = None) -> None:
    """Refuse a network for images or classes of another data set.

    Args:
        path: its file, for messages.
        kind: of the network.
        args: its arguments.
        dataset: name of the data set.
        data_root: folder of data sets.

    Raises:
        UserError: channels, size or classes differ.
    """
    info = dataset_info(dataset, root=data_root)
    for name, expected in data_args(kind, info.shape, info.num_classes).items():
        if (value := args.get(name, expected)) != expected:
            raise UserError(f"{path} is of another data set: its {name} is {value}, and {dataset} has {expected}")


def check_trained_on(path: Path, recipe: object, dataset: str) -> None:
    """Refuse weights whose recipe names another published data set; names of user-defined ones may change.

    Args:
        path: the weights, for messages.
        recipe: of their training, from their sidecar.
        dataset: the data set that they are used for.

    Raises:
        UserError: the recipe names another published data set.
    """
    trained = recipe.get("dataset") if isinstance(recipe, Mapping) else None
    if trained != dataset and {trained, dataset} <= set(NAMES):
        raise UserError(f"{path} is of another data set: its recipe is of {trained}, and {dataset} is asked for")


def load_tensors(network: nn.Module, data: bytes, path: Path) -> None:
    """Load the tensors of a safetensors file into a network; names and shapes must agree.

    Args:
        network: the network, changed in place.
        data: content of the file.
        path: its name, for messages.

    Raises:
        UserError: the file is no safetensors file, or a tensor is missing, unknown, of another shape or not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(data)
    except SafetensorError as error:
        raise UserError(f"{path} is no safetensors file ({error})") from None
    put_tensors(network, tensors, path)


def put_tensors(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load tensors into a network; names and shapes must agree.

    Args:
        network: the network, changed in place.
        tensors: the tensors by name.
        path: their file, for messages.

    Raises:
        UserError: a tensor is missing, unknown, of another shape or not finite.
    """
    expected = check_tensors(network, tensors, path)
    for name, value in tensors.items():
        if not bool(value.isfinite().all()):
            raise UserError(f'{path}: tensor "{name}" has values that are not finite')
    network.load_state_dict({n: tensors[n].to(v.dtype) for n, v in expected.items()}, strict=False)


def check_tensors(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Refuse tensors that do not fit a network; arguments and errors as for `put_tensors`.

    Returns:
        The network's tensors of the same names.
    """
    # Counters of batch norm, the only integers, are not used in evaluation and not stored.
    expected = {n: v for n, v in network.state_dict().items() if v.is_floating_point()}
    for name in sorted(expected.keys() | tensors.keys()):
        problem = _mismatch(name, expected, tensors)
        if problem:
            raise UserError(f"{path} does not fit the network: {problem}")
    return expected


def _mismatch(name: str, expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str | None:
    if name not in tensors:
        return f'tensor "{name}" is missing'
    if name not in expected:
        return f'it has a tensor "{name}" that the network has not' if tensors[name].is_floating_point() else None
    if tensors[name].shape != expected[name].shape:
        return f'tensor "{name}" is {list(tensors[name].shape)}, not {list(expected[name].shape)}'
    return None
