"""Checkpoints of NCSNv2 (Song & Ermon 2020), the network of ADP."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from defenses.importers.checkpoint import Checkpoint
from defenses.importers.torch_files import read_torch, tensors_of
from defenses.utils.errors import UserError
from defenses.utils.validation import Flag, under, validated

if TYPE_CHECKING:
    from defenses.data.dataset import DatasetInfo

_RENAMED = (  # (pattern of names in the release, replacement)
    (re.compile(r"^(res\d\.\d)\.(conv2|shortcut)\.conv\."), r"\1.\2."),
    (re.compile(r"\.msf\.convs\."), ".fuse."),
    (re.compile(r"\.crp\.convs\."), ".pools."),
)
_UNIT = re.compile(r"\.(adapt_convs\.\d+|output_convs)\.(\d)_(\d)_conv\.")


def ncsnv2(source: str, info: DatasetInfo, *, average: bool = False) -> Checkpoint:
    """Return a checkpoint of NCSNv2, as `best_checkpoint_with_denoising.pth` of CIFAR-10: [model, ..., average].

    The network is f, without the division by sigma.

    Args:
        source: the file.
        info: of the data set it was trained on.
        average: import the averaged weights, which NCSNv2 samples with, instead of the raw ones of ADP's release.

    Raises:
        UserError: the file is not readable or of another network.
    """
    validated(Flag, average, name=under("average"))
    file, content = Path(source), read_torch(Path(source))
    if not isinstance(content, Sequence) or len(content) < (5 if average else 1):
        expected = "five entries, the last the average" if average else "entries, the first the weights"
        raise UserError(f"{file} is no checkpoint of NCSNv2; it must be a list of {expected}")
    named = {_renamed(n): v for n, v in tensors_of(content[-1 if average else 0], file).items()}
    named.pop("sigmas", None)  # noise levels
    first = named.get("begin_conv.weight")
    if first is None or first.dim() != 4:
        raise UserError(f'{file} is no checkpoint of NCSNv2: tensor "begin_conv.weight" is missing or no convolution')
    args = {"in_channels": info.shape[0], "ngf": len(first)}
    return Checkpoint("adp", "ncsnv2", args, named, {"method": "adp"})


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = pattern.sub(replacement, name)

    def unit(match: re.Match[str]) -> str:
        part, block, stage = match.groups()
        where = part.replace("adapt_convs", "adapt").replace("output_convs", "output")
        return f".{where}.convs.{2 * (int(block) - 1) + int(stage) - 1}."

    return _UNIT.sub(unit, name)
