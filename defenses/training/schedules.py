"""Learning rates over a phase, from torch's schedulers; as tables by step they need no state to resume."""

from __future__ import annotations

from typing import Literal

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, CyclicLR, LRScheduler

Schedule = Literal["linear", "cosine", "cyclic"]


def learning_rates(name: str, lr: float, lr_end: float, steps: int) -> list[float]:
    """Return the learning rate of every step of a phase.

    Args:
        name: "cosine" falls from lr to lr_end along half a cosine; "cyclic" rises linearly from lr_end to lr over the
            first half of the phase and falls back over the second (Wong et al. 2020).
        lr: highest rate.
        lr_end: lowest rate.
        steps: length of the phase.
    """
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler: LRScheduler
    if name == "cosine":
        scheduler = CosineAnnealingLR(optimizer, steps, eta_min=lr_end)
    else:
        half = steps / 2
        scheduler = CyclicLR(optimizer, lr_end, lr, step_size_up=half, step_size_down=half, cycle_momentum=False)  # type: ignore[arg-type]
    rates = []
    for _ in range(steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()  # or the scheduler warns
        scheduler.step()
    return rates
