"""Random points in a ball around images, for the binarisation test."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.attacks.noise import uniform_in_ball
from bench.spec.threat import ThreatModel, distances
from defenses.core.noise import Draw, Noise

_INSIDE = 0.95  # radius of inner points, as a share of eps


def inner(x: Tensor, threat: ThreatModel, noise: Noise) -> Tensor:
    """Return random points well inside the ball, [B, C, H, W].

    Args:
        x: images [B, C, H, W] in [0, 1].
        threat: norm and eps.
        noise: B streams.
    """
    return x + _INSIDE * (uniform_in_ball(x, threat, noise) - x)


def boundary(x: Tensor, threat: ThreatModel, noise: Noise) -> Tensor:
    """Return random points on the boundary of the ball, as far as the box allows, [B, C, H, W].

    Linf: a vertex of the intersection of ball and box; L2, L1: a uniform point of the ball, scaled to its boundary.

    Args:
        x: images [B, C, H, W] in [0, 1].
        threat: norm and eps.
        noise: B streams.
    """
    eps = float(threat.eps)
    if threat.norm == "Linf":
        up = noise.draw(Draw(tuple(x.shape[1:]), "rademacher")) > 0
        return torch.where(up, (x + eps).clamp_max(1), (x - eps).clamp_min(0))
    point = uniform_in_ball(x, threat, noise)
    length = distances(x, point)[threat.norm].to(x).clamp_min(1e-12)
    scaled: Tensor = (x + (point - x) * (eps / length).view(-1, 1, 1, 1)).clamp(0, 1)
    return scaled
