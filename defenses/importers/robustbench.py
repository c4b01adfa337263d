"""Checkpoints of classifiers with an architecture of RobustBench (Croce et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from defenses.importers.checkpoint import Checkpoint
from defenses.importers.torch_files import read_tensors
from defenses.networks.registry import build_network
from defenses.utils.errors import UserError
from defenses.utils.json_values import Json
from defenses.utils.validation import Numbers, under, validated
from defenses.zoo.checkpoint_checks import check_tensors

if TYPE_CHECKING:
    from defenses.data.dataset import DatasetInfo

_GIVEN = ("kind", "seed", "name", "in_channels", "size", "num_classes")  # arguments that are no user's
_INSIDE = "network."  # where the network of kind "robustbench" has the architecture


def robustbench(
    source: str, info: DatasetInfo, /, *, architecture: str = "wide_resnet.WideResNet", **args: object
) -> Checkpoint:
    """Return the classifier of a `.pt` file in any layout of `tensors_of`.

    Args:
        source: the file, of torch.save or safetensors.
        info: of the data set it was trained on.
        architecture: see `networks.external.robustbench_network`; the default is WRN-28-10.
        **args: of the architecture, as depth and widen_factor, and mean and std of its normalisation.

    Raises:
        UserError: the file is not readable or of another network, with the first tensor that does not fit; an argument
            of another type, or one that the importer gives.
    """
    file = Path(source)
    _check(architecture, args)
    tensors = read_tensors(file)
    channels, size, _ = info.shape
    made: Json = {
        "name": architecture,
        "in_channels": channels,
        "size": size,
        "num_classes": info.num_classes,
        **args,
    }
    check_tensors(build_network("robustbench", **made).get_submodule("network"), tensors, file)  # by the file's names
    inside = {_INSIDE + name: value for name, value in tensors.items()}
    return Checkpoint("", "robustbench", made, inside, {})  # how it was trained is not in the file


def _check(architecture: object, args: Mapping[str, object]) -> None:
    """Refuse arguments of the wrong type, and those that the importer gives."""
    if not isinstance(architecture, str):
        raise UserError(f'architecture is {architecture}; it must be a text, as "wide_resnet.WideResNet"')
    for name in _GIVEN:
        if name in args:
            remedy = "set architecture" if name == "name" else "leave it out"
            raise UserError(f'"{name}" is no option of robustbench; {remedy}')
    for name in ("mean", "std"):
        validated(Numbers | None, args.get(name), name=under(name))
