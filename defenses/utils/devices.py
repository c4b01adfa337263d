"""Devices by name."""

from __future__ import annotations

import torch

from defenses.utils.errors import UserError


def device_named(name: str) -> torch.device:
    """Return the device of a name, as "cpu" or "cuda:0".

    Raises:
        UserError: it cannot be used on this machine.
    """
    try:
        device = torch.device(name)
    except RuntimeError:  # its message is a long list of backends
        text = f'device "{name[:40]}" cannot be used: torch knows none of that name'
        raise UserError(f"{text}; try cpu, or cuda:0") from None
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0][:60]
        raise UserError(f'device "{name[:40]}" cannot be used: {reason}; try cpu') from None
    return device
