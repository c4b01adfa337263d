"""Gradients without gradients: simultaneous perturbation (Spall 1992; Uesato et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.attacks.adaptive.queries import Answer, Query, Value
from defenses.core.noise import Draw, Noise

_PROBE = 1 / 50  # how far it looks on both sides, in pixels
_DIRECTION = 1 << 32  # name of the directions' noise stream, which no copy has


def estimated(ask: Query, x: Tensor, noise: Noise, copies: Tensor, mode: str, value: Value) -> tuple[Tensor, Tensor]:
    """(mean losses [n], gradient estimates), from `copies` random directions, each under a draw of its own.

    Both sides of a direction meet the same draw of the defense: without that, the difference would be its noise.

    Args:
        ask: the defense.
        x: images [n, C, H, W].
        noise: n streams.
        copies: directions of every image, int64 [n].
        mode: whose values are asked.
        value: from what was said to the losses of the rows [R].
    """
    item = torch.arange(len(x), device=x.device).repeat_interleave(copies)
    copy = torch.arange(len(item), device=x.device) - (copies.cumsum(0) - copies)[item]
    own = Noise(noise.keys[item]).child(copy)
    ways = own.child(_DIRECTION).draw(Draw(tuple(x.shape[1:]), "rademacher"))
    sides = torch.cat([(x[item] + _PROBE * ways).clamp(0, 1), (x[item] - _PROBE * ways).clamp(0, 1)])
    said = ask.logits(sides, Noise(own.keys.repeat(2, 1)), torch.ones_like(item).repeat(2), mode)
    above, below = value(Answer(said.logits, item.repeat(2), said.excess)).chunk(2)
    slopes = ((above - below) / (2 * _PROBE)).view(-1, 1, 1, 1) * ways
    gradient = torch.zeros_like(x).index_add(0, item, slopes) / copies.view(-1, 1, 1, 1)
    means = torch.zeros(len(x), device=x.device).index_add(0, item, (above + below) / 2) / copies
    return means, gradient
