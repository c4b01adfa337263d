"""Checkpoints of pytorch_resnet_cifar10 (Idelbayev 2018): ResNets of He et al. 2016 with shortcuts of option A."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from defenses.importers.checkpoint import Checkpoint
from defenses.importers.torch_files import read_tensors
from defenses.utils.errors import UserError

if TYPE_CHECKING:
    from defenses.data.dataset import DatasetInfo

_KINDS = {3: "resnet20", 9: "resnet56", 18: "resnet110"}  # by blocks of a stage
_CLEAN = {"resnet20": 0.9173, "resnet56": 0.9339}  # on CIFAR-10, the table of the repository
_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # ImageNet's, which its training used
_BLOCK = re.compile(r"layer1\.(\d+)\.")


def cifar_resnet(source: str, info: DatasetInfo) -> Checkpoint:
    """Return a checkpoint, as `resnet20-12fca82f.th`, or its tensors in a safetensors file.

    Args:
        source: the file; a state dict, or one under "state_dict", with or without the prefix "module.".
        info: of the data set it was trained on.

    Raises:
        UserError: the file is not readable or of another network.
    """
    file = Path(source)
    tensors = read_tensors(file)
    tensors.pop("num_batches_tracked", None)
    blocks = {match[1] for name in tensors if (match := _BLOCK.match(name))}  # of the first stage
    kind = _KINDS.get(len(blocks))
    if kind is None or "linear.weight" not in tensors:
        known = ", ".join(_KINDS.values())
        raise UserError(f"{file} is no checkpoint of pytorch_resnet_cifar10 with the layers of {known}")
    args = {"in_channels": info.shape[0], "num_classes": info.num_classes, "mean": _MEAN, "std": _STD}
    clean = _CLEAN.get(kind) if info.name == "cifar10" else None
    recipe = {"method": "undefended", "licence": "BSD-2-Clause"}
    return Checkpoint("undefended", kind, args, tensors, recipe, clean)
