"""Translate calls of `robustbench.eval.benchmark` to those of `bench.benchmark`."""

from __future__ import annotations

import dis
from collections.abc import Mapping
from types import FrameType

from defenses.utils.errors import UserError
from defenses.utils.parameters import plain

_SAME = {"data_dir": "data_root", "model_name": "name"}
_INSTEAD = {
    "to_disk": 'out="folder" keeps results, and `purebench model-info export` writes RobustBench\'s JSON',
    "log_path": "quiet=False shows the progress",
    "aa_state_path": 'out="folder" keeps finished blocks and resumes',
    "corruptions_data_dir": 'corrupted images are a data set: dataset="cifar10-c/fog/5", data_dir=...',
}


def translated(
    dataset: object, threat_model: object, others: Mapping[str, object]
) -> tuple[str, object, dict[str, object]]:
    """Translate RobustBench's arguments.

    Args:
        dataset: a name, or RobustBench's enum.
        threat_model: a norm, a `ThreatModel` of purebench, or RobustBench's enum.
        others: further arguments; RobustBench's without a counterpart must have their defaults, and those that it
            does not have stay as they are.

    Returns:
        Name of the data set, norm or threat model, and the other arguments of `bench.benchmark`.

    Raises:
        UserError: an argument without a counterpart that differs from its default.
    """
    name, threat, ours = str(plain(dataset)), plain(threat_model), {}
    if isinstance(threat, str) and threat.startswith("corruptions"):
        raise UserError(f'"{threat}" is no threat model here: corrupted images are a data set, "cifar10-c/fog/5"')
    for key, value in others.items():
        if key in _SAME:
            ours[_SAME[key]] = value
        elif key == "verbose":
            ours["quiet"] = not value
        elif key == "preprocessing":
            name = _preprocessed(name, value)
        elif key not in _INSTEAD:
            ours[key] = value
        elif value:
            raise UserError(f"{key} is RobustBench's; leave it out: {_INSTEAD[key]}")
    return name, threat, ours


def refuse_unpacking(caller: FrameType) -> None:
    """Refuse a call whose result is unpacked into a pair, as that of RobustBench: before hours of work and not after.

    Args:
        caller: the frame that calls `benchmark`.

    Raises:
        UserError: the next instruction there unpacks the result.
    """
    following = (i for i in dis.get_instructions(caller.f_code) if i.offset > caller.f_lasti)
    if next((i.opname for i in following if i.opname != "CACHE"), "") == "UNPACK_SEQUENCE":
        raise UserError(
            "benchmark returns a frame, a row per image and attack, and no pair; write "
            "clean, robust = bench.clean_and_robust(bench.benchmark(...))"
        )


def _preprocessed(dataset: str, value: object) -> str:
    """Return the data set's name with a preprocessing of ImageNet, which RobustBench takes apart."""
    if value is None:
        return dataset
    if not isinstance(value, str) or dataset != "imagenet":
        raise UserError('preprocessing is a name, for imagenet alone, as "Crop288"; let the model prepare its images')
    return f"{dataset}/{value}"
