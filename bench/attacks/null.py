"""The attacks of the harness itself: nothing at all, and uniform noise in the ball (the null attack)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from bench.attacks.base import Attack
from bench.attacks.budgets import check_params

if TYPE_CHECKING:
    from torch import Tensor

    from bench.spec.threat import ThreatModel

_VERSION = "purebench noise 1"  # counts up when the images that come out change


def names() -> list[str]:
    """The names."""
    return ["none", "uniform"]


def find(name: str, params: dict[str, Any]) -> Attack:
    """See `bench.attacks.registry.find_attack`."""
    check_params(name, params, ())
    return Attack(name=name, run=partial(_run, name), minimisation=False, version=_VERSION)


def _run(
    name: str,
    view: Any,  # noqa: ARG001
    x: Tensor,
    y: Tensor,  # noqa: ARG001
    *,
    threat: ThreatModel,
    target: Tensor | None,  # noqa: ARG001
    seed: int,
    num_classes: int,  # noqa: ARG001
    indices: Tensor | None = None,
) -> Tensor:
    if name == "none":
        return x.clone()
    from bench.attacks.noise import uniform_in_ball
    from defenses.core.noise import Noise

    return uniform_in_ball(x, threat, Noise.of(seed, len(x) if indices is None else indices, x.device))
