"""Whether weights fit: a network to a data set, tensors to a network.

Nothing here imports torch at module level.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defenses.utils.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn


def check_data(
    path: Path, kind: str, args: Mapping[str, Any], dataset: str, data_root: Path | str | None = None
) -> None:
    """Refuse a network for images or classes of another data set.

    Args:
        path: the file it is from, for messages.
        kind: of network.
        args: its arguments.
        dataset: name of the data set.
        data_root: where data sets lie.

    Raises:
        UserError: channels, size or classes differ.
    """
    from defenses.data.dataset import dataset_info
    from defenses.networks.registry import data_args

    info = dataset_info(dataset, root=data_root)
    for name, wanted in data_args(kind, info.shape, info.num_classes).items():
        if (given := args.get(name, wanted)) != wanted:
            raise UserError(f"{path} is of another data set: its {name} is {given}, and {dataset} has {wanted}")


def check_trained_on(path: Path, recipe: object, dataset: str) -> None:
    """Refuse weights whose recipe names another published data set; images of one's own have names that may change.

    Args:
        path: the weights, for messages.
        recipe: of their training, as their description has it.
        dataset: the data set that they are for.

    Raises:
        UserError: it is another one.
    """
    from defenses.data.dataset import NAMES

    trained = recipe.get("dataset") if isinstance(recipe, Mapping) else None
    if trained != dataset and {trained, dataset} <= set(NAMES):
        raise UserError(f"{path} is of another data set: its recipe is of {trained}, and {dataset} is asked for")


def load_tensors(network: nn.Module, data: bytes, path: Path) -> None:
    """Put the tensors of a safetensors file into a network; names and shapes must agree.

    Args:
        network: the network, changed in place.
        data: content of the file.
        path: its name, for messages.

    Raises:
        UserError: it is no safetensors file, or a tensor is missing, unknown or of another shape.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        given = load(data)
    except SafetensorError as error:
        raise UserError(f"{path} is no safetensors file ({error})") from None
    put_tensors(network, given, path)


def put_tensors(network: nn.Module, given: Mapping[str, Tensor], path: Path) -> None:
    """Put tensors into a network; names and shapes must agree.

    Args:
        network: the network, changed in place.
        given: the tensors by name.
        path: the file they are from, for messages.

    Raises:
        UserError: a tensor is missing, unknown, of another shape or not finite.
    """
    wanted = check_tensors(network, given, path)
    for name, value in given.items():
        if not bool(value.isfinite().all()):
            raise UserError(f'{path}: tensor "{name}" has values that are not finite')
    network.load_state_dict({n: given[n].to(v.dtype) for n, v in wanted.items()}, strict=False)


def check_tensors(network: nn.Module, given: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Refuse tensors that are not those of a network; for arguments and errors see `put_tensors`.

    Returns:
        The network's own.
    """
    # Counters of batch norm, the only integers, play no part in evaluation and are not stored.
    wanted = {n: v for n, v in network.state_dict().items() if v.is_floating_point()}
    for name in sorted(wanted.keys() | given.keys()):
        problem = _mismatch(name, wanted, given)
        if problem:
            raise UserError(f"{path} does not fit the network: {problem}")
    return wanted


def _mismatch(name: str, wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str | None:
    if name not in given:
        return f'tensor "{name}" is missing'
    if name not in wanted:
        return f'it has a tensor "{name}" that the network has not' if given[name].is_floating_point() else None
    if given[name].shape != wanted[name].shape:
        return f'tensor "{name}" is {list(given[name].shape)}, not {list(wanted[name].shape)}'
    return None
