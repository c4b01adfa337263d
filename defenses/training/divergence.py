"""Checks for values that are not finite, before they are stepped on, validated, saved or shipped."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from torch import Tensor
from torch.nn.utils import get_total_norm

from defenses.training.objective import Objective


class Diverged(Exception):
    """Divergence of a training; the message names the values that are not finite."""


def check_gradient(objective: Objective) -> None:
    """Refuse a gradient that is not finite.

    Raises:
        Diverged: an entry is not finite.
    """
    gradients = [p.grad for p in objective.network.parameters() if p.grad is not None]
    # The norm is a cheap first check, but may overflow where all entries are finite.
    if not math.isfinite(float(get_total_norm(gradients))) and not _finite(gradients):
        raise Diverged("a gradient that is not finite")


def check_weights(objective: Objective) -> None:
    """Refuse a network, or other state of a checkpoint, that is not finite.

    Raises:
        Diverged: an entry is not finite.
    """
    for name, values in (("weight", objective.network.state_dict()), ("state", objective.state())):
        if not _finite(values):
            raise Diverged(f"a {name} that is not finite")


def _finite(value: object) -> bool:
    return all(bool(v.isfinite().all()) for v in _tensors(value))


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for v in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(v)
