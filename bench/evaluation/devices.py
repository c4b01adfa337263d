"""Devices of models and of commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from defenses.core.defense import Defense
from defenses.utils.errors import UserError

if TYPE_CHECKING:
    import torch


def device_of(defense: Defense) -> torch.device:
    """Where a defense is: the device of its first parameter or buffer, else the CPU."""
    tensor = next(defense.parameters(), next(defense.buffers(), None))
    return torch.device("cpu") if tensor is None else tensor.device


def device_named(name: str) -> torch.device:
    """The device of a name.

    Raises:
        UserError: it cannot be used here.
    """
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:  # torch lists every backend that it has ever had
        text = f'device "{name[:40]}" cannot be used: torch knows none of that name'
        raise UserError(f"{text}; try --device cpu, or cuda:0") from None
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0][:60]
        raise UserError(f'device "{name[:40]}" cannot be used: {reason}; try --device cpu') from None
    return device
