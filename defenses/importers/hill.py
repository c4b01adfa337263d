"""Checkpoints of ebm-defense (Hill, Mitchell & Zhu 2021): `ebm.pth` and `clf.pth`, state dicts of its two networks.

The energy is a chain `f` of five convolutions, the classifier a wide residual network with biases; both take images
in [-1, 1].
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from defenses.importers.checkpoint import Checkpoint
from defenses.importers.torch_files import read_torch, tensors_of
from defenses.utils.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from defenses.data.dataset import DatasetInfo

_CHAIN = "f."
_EPS = {"cifar10": 0.01, "cifar100": 0.01, "svhn": 0.0175}  # step size of training, and so of purification


def energy(source: str, info: DatasetInfo) -> Checkpoint:
    """Return the energy of `ebm.pth`.

    Args:
        source: the file.
        info: of the data set it was trained on.

    Raises:
        UserError: the file is not readable, has a tensor that is not named `f....`, or is of a data set without a
            published step size.
    """
    file = Path(source)
    content = tensors_of(read_torch(file), file)
    if info.name not in _EPS:
        raise UserError(f'no published step size for "{info.name}"; energies of {", ".join(_EPS)} are known')
    for name in content:
        if not name.startswith(_CHAIN):
            raise UserError(f'{file} is no energy of ebm-defense: it has a tensor "{name}" that the network has not')
    first = content.get("f.0.weight")
    if first is None or first.dim() != 4:
        raise UserError(f'{file} is no energy of ebm-defense: tensor "f.0.weight" is missing or no convolution')
    args = {"in_channels": info.shape[0], "size": info.shape[1], "features": len(first)}
    eps = _EPS[info.name]
    recipe = {
        "method": "ebm-mcmc",
        "objective": {"eps": eps},
        "deploy": {"eps": eps, "temperature": eps**2 / 2, "steps": 1500, "runs": 150},
    }
    tensors = {name.removeprefix(_CHAIN): v for name, v in content.items()}
    return Checkpoint("ebm-mcmc", "energy-conv", args, tensors, recipe)


def classifier(source: str, info: DatasetInfo) -> Checkpoint:
    """Return the classifier of `clf.pth`.

    Args:
        source: the file.
        info: of the data set it was trained on.

    Raises:
        UserError: the file is not readable, or its first convolutions have no valid width.
    """
    file = Path(source)
    content = tensors_of(read_torch(file), file)
    inner, depth = content.get("layer1.0.conv1.weight"), _depth(content)
    if inner is None or inner.dim() != 4 or len(inner) % 16 or not depth:
        raise UserError(f'{file} is no classifier of ebm-defense: "layer1.0.conv1.weight" is missing or does not fit')
    shape = {"in_channels": info.shape[0], "num_classes": info.num_classes}
    args = {"depth": depth, "width": len(inner) // 16, **shape}
    return Checkpoint("hill-clf", "wrn-biased", args, content, {"method": "undefended"})


def _depth(content: dict[str, Tensor]) -> int:
    """Return 6n + 4, for the n blocks of the first stage; 0 if there are none."""
    blocks = {name.split(".")[1] for name in content if name.startswith("layer1.")}
    return 6 * len(blocks) + 4 if blocks else 0
