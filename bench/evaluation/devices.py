"""Devices of models."""

from __future__ import annotations

import torch

from defenses.core.defense import Defense


def device_of(defense: Defense) -> torch.device:
    """Return the device of a defense's first parameter or buffer, else the CPU."""
    tensor = next(defense.parameters(), next(defense.buffers(), None))
    return torch.device("cpu") if tensor is None else tensor.device
