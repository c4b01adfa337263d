"""The arguments of `robustbench.eval.benchmark`, in the words of `bench.benchmark`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from defenses.utils.errors import UserError, unknown
from defenses.utils.parameters import plain

_SAME = {"data_dir": "data_root", "model_name": "name"}
_INSTEAD = {
    "to_disk": 'out="folder" keeps results, and `purebench model-info export` writes RobustBench\'s JSON',
    "log_path": "quiet=False shows the progress",
    "aa_state_path": 'out="folder" keeps finished blocks and resumes',
    "corruptions_data_dir": 'corrupted images are a data set: dataset="cifar10-c/fog/5", data_dir=...',
}


def translated(dataset: Any, threat_model: Any, given: Mapping[str, Any]) -> tuple[str, Any, dict[str, Any]]:
    """Return (data set, threat model, arguments in our names).

    Args:
        dataset: a name, or RobustBench's enum.
        threat_model: a norm, a `ThreatModel` of ours, or RobustBench's enum.
        given: RobustBench's other arguments. Those that purebench has no use for may have their default alone.

    Raises:
        UserError: an argument that neither has, or one that is done differently here.
    """
    name, threat, ours = str(plain(dataset)), plain(threat_model), {}
    if isinstance(threat, str) and threat.startswith("corruptions"):
        raise UserError(f'"{threat}" is no threat model here: corrupted images are a data set, "cifar10-c/fog/5"')
    for key, value in given.items():
        if key in _SAME:
            ours[_SAME[key]] = value
        elif key == "preprocessing":
            name = _preprocessed(name, value)
        elif key not in _INSTEAD:
            raise unknown("argument of benchmark", key, [*_SAME, *_INSTEAD, "preprocessing"])
        elif value:
            raise UserError(f"{key} is RobustBench's; leave it out: {_INSTEAD[key]}")
    return name, threat, ours


def _preprocessed(dataset: str, value: Any) -> str:
    """Return the name of a data set with RobustBench's preprocessing of ImageNet, which is part of the name here."""
    if value is None:
        return dataset
    if not isinstance(value, str) or dataset != "imagenet":
        raise UserError('preprocessing is a name, for imagenet alone, as "Crop288"; let the model prepare its images')
    return f"{dataset}/{value}"
