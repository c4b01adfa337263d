"""Null attacks: the clean images, and uniform noise in the ball."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from bench.attacks.base import Attack, AttackRequest, keyword_form
from bench.attacks.budgets import check_params
from defenses.utils.introspection import Parameters

if TYPE_CHECKING:
    from torch import Tensor

_VERSION = "purebench noise 1"  # counts up when the images change


def names() -> list[str]:
    """Return the names of the null attacks."""
    return ["none", "uniform"]


def find(name: str, params: dict[str, object]) -> Attack:
    """Return a null attack; see `bench.attacks.registry.find_attack`."""
    check_params(name, params, ())
    return Attack(name=name, run=keyword_form(partial(_run, name)), minimisation=False, version=_VERSION)


def parameters(_: str) -> Parameters:
    """Return that a null attack has no parameters; see `bench.attacks.registry.attack_parameters`."""
    return Parameters()


def _run(name: str, _view: object, request: AttackRequest) -> Tensor:
    x, indices = request.x, request.indices
    if name == "none":
        return x.clone()
    from bench.attacks.noise import uniform_in_ball
    from defenses.core.noise import Noise

    noise = Noise.of(request.seed, len(x) if indices is None else indices, x.device)
    return uniform_in_ball(x, request.threat, noise)
