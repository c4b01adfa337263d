"""The suite "bench": the adaptive attacks, and the attack of the EBM paper."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.attacks.adaptive import suite as adaptive
from bench.attacks.base import Attack, AttackRequest, keyword_form
from bench.attacks.budgets import check_params
from defenses.utils.errors import unknown
from defenses.utils.introspection import Parameters, function_parameters, parse

if TYPE_CHECKING:
    from torch import Tensor

BPDA_EOT = "bpda-eot"
# Part of keys, so that results stay valid; it changes when the images change.
_BPDA_EOT_VERSION = "screened.py e7250c09dda40e52"


def names() -> list[str]:
    """Return the local names."""
    return [*adaptive.names(), BPDA_EOT]


def find(local: str, params: dict[str, object]) -> Attack:
    """Return an attack of the suite; see `bench.attacks.registry.find_attack`."""
    name = f"bench:{local}"
    if local in adaptive.names():
        return adaptive.find(local, params)
    if local != BPDA_EOT:
        raise unknown("attack", name, [f"bench:{n}" for n in names()])
    check_params(name, params, parameters(local).names)
    return Attack(name=name, run=keyword_form(_bpda_eot), minimisation=False, version=_BPDA_EOT_VERSION)


def parameters(local: str) -> Parameters:
    """Return the parameters of an attack; see `bench.attacks.registry.attack_parameters`."""
    if local in adaptive.names():
        return adaptive.parameters(local)
    tree = parse(Path(__file__).with_name("bpda_eot.py"))
    function = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "bpda_eot")
    return function_parameters(function, skip=3).without("threat", "target", "seed", "indices")


def _bpda_eot(view: Any, request: AttackRequest) -> Tensor:
    import torch

    from bench.attacks.bpda_eot import bpda_eot
    from defenses.utils.isolation import seeded_globals

    x, y, seed = request.x, request.y, request.seed
    indices = torch.arange(len(x)) if request.indices is None else request.indices
    goal: dict[str, Any] = {"threat": request.threat, "target": request.target}
    with seeded_globals(seed, x.device):
        return bpda_eot(view, x, y, **goal, seed=seed, indices=indices, **request.params)
