"""Gradient estimates by simultaneous perturbation, SPSA (Spall 1992; Uesato et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.attacks.adaptive.queries import Answer, Query, Value
from defenses.core.noise import Draw, Noise

_PROBE = 1 / 50  # distance of both sides from the image, of pixels in [0, 1]
_DIRECTION = 1 << 32  # name of the directions' noise stream, which no copy has


def estimated(query: Query, x: Tensor, noise: Noise, copies: Tensor, mode: str, value: Value) -> tuple[Tensor, Tensor]:
    """Return (mean losses [n], gradient estimates [n, C, H, W]) from random directions, each with a separate draw.

    Both sides of a direction meet the same draw of the defense, so that its noise cancels in their difference.

    Args:
        query: of the defense.
        x: images [n, C, H, W].
        noise: n streams.
        copies: directions of every image, int64 [n].
        mode: gradient mode with the logits to use.
        value: returns the losses of an answer's rows, [R].
    """
    item = torch.arange(len(x), device=x.device).repeat_interleave(copies)
    copy = torch.arange(len(item), device=x.device) - (copies.cumsum(0) - copies)[item]
    streams = Noise(noise.keys[item]).child(copy)
    ways = streams.child(_DIRECTION).draw(Draw(tuple(x.shape[1:]), "rademacher"))
    sides = torch.cat([(x[item] + _PROBE * ways).clamp(0, 1), (x[item] - _PROBE * ways).clamp(0, 1)])
    answer = query.logits(sides, Noise(streams.keys.repeat(2, 1)), torch.ones_like(item).repeat(2), mode)
    above, below = value(Answer(answer.logits, item.repeat(2), answer.excess)).chunk(2)
    slopes = ((above - below) / (2 * _PROBE)).view(-1, 1, 1, 1) * ways
    gradient = torch.zeros_like(x).index_add(0, item, slopes) / copies.view(-1, 1, 1, 1)
    means = torch.zeros(len(x), device=x.device).index_add(0, item, (above + below) / 2) / copies
    return means, gradient
