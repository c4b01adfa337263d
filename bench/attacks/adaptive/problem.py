"""The problem of an adaptive attack (images and aims), and its stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bench.attacks.adaptive.losses import Aim
from bench.attacks.base import AttackRequest, Unsupported
from defenses.core.noise import Noise

if TYPE_CHECKING:
    from bench.spec.threat import Norm

SPSA = "spsa"  # in place of a gradient mode: no gradient


@dataclass(frozen=True, eq=False)
class Problem:
    """Images to attack.

    Args:
        x: float32 [B, C, H, W] in [0, 1].
        aim: of the images.
        norm: "Linf", "L2" or "L1".
        eps: radius.
        noise: B streams, keyed by the seed and the images' positions in the data set.
        num_classes: K.
    """

    x: Tensor
    aim: Aim
    norm: Norm
    eps: float
    noise: Noise
    num_classes: int

    @classmethod
    def of(cls, request: AttackRequest) -> Problem:
        """Return the problem of a request.

        Raises:
            Unsupported: the norm is L0.
        """
        x, y, threat, target = request.x, request.y, request.threat, request.target
        if threat.norm == "L0":
            raise Unsupported("the attacks of purebench have the norms Linf, L2 and L1, not L0")
        towards = torch.full_like(y, target is not None, dtype=torch.bool)
        aim = Aim(y, y if target is None else target, towards)
        rows = torch.arange(len(x)) if request.indices is None else request.indices
        noise = Noise.of(request.seed, rows.to(x.device), x.device)
        return cls(x.detach(), aim, threat.norm, float(threat.eps), noise, request.num_classes)


@dataclass(frozen=True)
class Stage:
    """Stage of an attack: a run of steps with one gradient mode and loss.

    Args:
        mode: a gradient mode, or `SPSA`.
        loss: "ce", "margin" or "dlr".
        rank: of the wrong class to reach, 1 is the likeliest on the clean image; 0: away from the label, or to the
            class of the threat.
        fresh: begins at a random point; else at the best iterate of earlier stages.
        steps: number of steps; the cheaper modes, which only prepare, have half.
    """

    mode: str
    loss: str
    rank: int
    fresh: bool
    steps: int
