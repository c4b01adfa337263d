"""Checkpoints of score_sde (Song et al. 2021): its DDPM++ under VP or sub-VP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from defenses.importers.checkpoint import Checkpoint
from defenses.importers.torch_files import read_torch, tensors_of
from defenses.networks.registry import build_network
from defenses.utils.errors import UserError, check_whole
from defenses.utils.json_values import Json
from defenses.utils.validation import Counts, under, validated
from defenses.zoo.checkpoint_checks import check_tensors

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
    """Return a checkpoint of DDPM++; defaults fit `checkpoint_8.pth` of cifar10_ddpmpp_deep_continuous under VP.

    The file holds {optimizer, model, ema, step}. The average, which is imported, is a list without names, in the order
    of the parameters: `model` in the same file has the names, whose order must be that of purebench's network.

    Args:
        source: the file.
        info: of the data set it was trained on.
        channels: see `networks.ncsnpp.NCSNpp`.
        multipliers: see there.
        blocks: see there.
        attention: see there.
        sde: of its training, "vp" or "subvp".

    Raises:
        UserError: an argument is out of range; the file is not readable or of another network.
    """
    check_whole(1, channels=channels, blocks=blocks)
    _check_whole_lists(multipliers=multipliers, attention=attention)
    file, content = Path(source), read_torch(Path(source))
    if not isinstance(content, Mapping) or not {"model", "ema"} <= set(content):
        raise UserError(f"{file} is no checkpoint of score_sde; it must hold model and ema")
    named = tensors_of(content["model"], file)
    named.pop("sigmas", None)  # noise levels
    average = _average(content["ema"], len(named), file)
    args: Json = {
        "in_channels": info.shape[0],
        "size": info.shape[1],
        "channels": channels,
        "multipliers": list(multipliers),
        "blocks": blocks,
        "attention": list(attention),
        "sde": sde,
    }
    with torch.device("meta"):  # only names and shapes are used
        network = build_network("ncsnpp", **args)
    check_tensors(network, named, file)
    names = [name for name, _ in network.named_parameters()]
    if names != list(named):
        first = next(a for a, b in zip(names, named, strict=True) if a != b)
        raise UserError(f'{file}: from "{first}" on its parameters, and so its average, stand in another order')
    tensors = dict(zip(names, average, strict=True))
    return Checkpoint("score-sde", "ncsnpp", args, tensors, {"method": "score-sde"})


def _check_whole_lists(**lists: Sequence[int]) -> None:
    for key, values in lists.items():
        validated(Counts, values, name=under(key))


def _average(ema: object, count: int, file: Path) -> Sequence[Tensor]:
    """Return the averaged weights, of which there must be as many as the model's."""
    average = ema.get("shadow_params") if isinstance(ema, Mapping) else None
    if not isinstance(average, Sequence) or not all(isinstance(v, Tensor) for v in average):
        raise UserError(f"{file}: its average has no tensors; ema must hold the list shadow_params")
    if len(average) != count:
        raise UserError(f"{file}: its average has {len(average)} tensors and its model {count}")
    return average
