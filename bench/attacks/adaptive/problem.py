"""The problem that an adaptive attack solves, and the settings of its stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bench.attacks.adaptive.losses import Aim
from bench.attacks.base import Unsupported
from defenses.core.noise import Noise

if TYPE_CHECKING:
    from bench.spec.threat import Norm, ThreatModel

SPSA = "spsa"  # in the place of a gradient mode: no gradient at all


@dataclass(frozen=True, eq=False)
class Problem:
    """Images to attack.

    Args:
        x: float32 [B, C, H, W] in [0, 1].
        aim: what is wanted of them.
        norm: "Linf", "L2" or "L1".
        eps: radius.
        noise: B streams, keyed by the seed and the images' places in the data set.
        num_classes: K.
    """

    x: Tensor
    aim: Aim
    norm: Norm
    eps: float
    noise: Noise
    num_classes: int

    @classmethod
    def of(
        cls,
        x: Tensor,
        y: Tensor,
        *,
        threat: ThreatModel,
        target: Tensor | None,
        seed: int,
        num_classes: int,
        indices: Tensor | None,
    ) -> Problem:
        """The problem of `Attack.run`'s arguments.

        Raises:
            Unsupported: the norm is L0.
        """
        if threat.norm == "L0":
            raise Unsupported("the attacks of purebench have the norms Linf, L2 and L1, not L0")
        towards = torch.full_like(y, target is not None, dtype=torch.bool)
        aim = Aim(y, y if target is None else target, towards)
        rows = torch.arange(len(x)) if indices is None else indices
        noise = Noise.of(seed, rows.to(x.device), x.device)
        return cls(x.detach(), aim, threat.norm, float(threat.eps), noise, num_classes)


@dataclass(frozen=True)
class Stage:
    """One run of steps: its gradient mode, loss, the rank of the wrong class it heads for (0: none), and its start.

    Args:
        mode: a gradient mode, or `SPSA`.
        loss: "ce", "margin" or "dlr".
        rank: 1 is the likeliest wrong class of the clean image; 0: away from the label, or to the class of the threat.
        fresh: from a random point, with the best of earlier stages put aside; else from that best.
        steps: how many; half of them in the cheaper modes, which only prepare.
    """

    mode: str
    loss: str
    rank: int
    fresh: bool
    steps: int
