"""Divergence: what is not finite is noticed before it is stepped on, validated, saved or shipped."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.nn.utils import get_total_norm

from defenses.training.objective import Objective


class Diverged(Exception):
    """The message says what is no longer finite."""


def check_gradient(objective: Objective) -> None:
    """Refuse a gradient that a step must not be made of.

    Raises:
        Diverged: an entry is not finite.
    """
    gradients = [p.grad for p in objective.network.parameters() if p.grad is not None]
    # The norm costs a tenth of looking at every entry, but may overflow where all of them are finite.
    if not math.isfinite(float(get_total_norm(gradients))) and not _finite(gradients):
        raise Diverged("a gradient that is not finite")


def check_weights(objective: Objective) -> None:
    """Refuse what no step should have led to.

    Raises:
        Diverged: an entry of the network, or of what else a checkpoint holds, is not finite.
    """
    for name, kept in (("weight", objective.network.state_dict()), ("state", objective.state())):
        if not _finite(kept):
            raise Diverged(f"a {name} that is not finite")


def _finite(value: Any) -> bool:
    return all(bool(v.isfinite().all()) for v in _tensors(value))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for v in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(v)
