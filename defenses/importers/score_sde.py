"""Checkpoints of score_sde (Song et al. 2021): its DDPM++ under VP or sub-VP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from defenses.importers.checkpoint import Checkpoint
from defenses.importers.torch_files import read_torch, tensors_of
from defenses.utils.errors import UserError, check_whole

if TYPE_CHECKING:
    from defenses.data.dataset import DatasetInfo


def score_sde(
    source: str,
    info: DatasetInfo,
    *,
    channels: int = 128,
    multipliers: Sequence[int] = (1, 2, 2, 2),
    blocks: int = 8,
    attention: Sequence[int] = (16,),
    sde: str = "vp",
) -> Checkpoint:
    """A checkpoint of DDPM++; the defaults are `checkpoint_8.pth` of cifar10_ddpmpp_deep_continuous under VP.

    The file holds {optimizer, model, ema, step}. The average, which is taken, is a list without names, in the order of
    the parameters: the names are those of `model` in the same file, and their order must be that of the network here.

    Args:
        source: the file.
        info: of the data set it was trained on.
        channels: see `networks.ncsnpp.NCSNpp`.
        multipliers: see there.
        blocks: see there.
        attention: see there.
        sde: what it was trained under, "vp" or "subvp".

    Raises:
        UserError: an argument is out of range; the file is not readable or of another network.
    """
    from defenses.networks.registry import build_network
    from defenses.zoo.checkpoint_checks import check_tensors

    check_whole(1, channels=channels, blocks=blocks)
    for key, values in (("multipliers", multipliers), ("attention", attention)):
        if isinstance(values, str) or not isinstance(values, Sequence):
            raise UserError(f"{key} is {values!r}; it must be a list of whole numbers, as [1, 2, 2, 2]")
        for value in values:
            check_whole(1, **{f"a value of {key}": value})
    file, content = Path(source), read_torch(Path(source))
    if not isinstance(content, Mapping) or not {"model", "ema"} <= set(content):
        raise UserError(f"{file} is no checkpoint of score_sde; it must hold model and ema")
    named = tensors_of(content["model"], file)
    named.pop("sigmas", None)  # noise levels, no weights
    average = _average(content["ema"], len(named), file)
    args: dict[str, Any] = {
        "in_channels": info.shape[0],
        "size": info.shape[1],
        "channels": channels,
        "multipliers": list(multipliers),
        "blocks": blocks,
        "attention": list(attention),
        "sde": sde,
    }
    with torch.device("meta"):  # for its names alone
        network = build_network("ncsnpp", **args)
    check_tensors(network, named, file)
    own = [name for name, _ in network.named_parameters()]
    if own != list(named):
        first = next(a for a, b in zip(own, named, strict=True) if a != b)
        raise UserError(f'{file}: from "{first}" on its parameters, and so its average, stand in another order')
    tensors = dict(zip(own, average, strict=True))
    return Checkpoint("score-sde", "ncsnpp", args, tensors, {"method": "score-sde"})


def _average(ema: object, count: int, file: Path) -> Sequence[Tensor]:
    """The averaged weights, as many as the model has."""
    average = ema.get("shadow_params") if isinstance(ema, Mapping) else None
    if not isinstance(average, Sequence) or not all(isinstance(v, Tensor) for v in average):
        raise UserError(f"{file}: its average has no tensors; ema must hold the list shadow_params")
    if len(average) != count:
        raise UserError(f"{file}: its average has {len(average)} tensors and its model {count}")
    return average
