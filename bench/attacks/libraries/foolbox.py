"""Foolbox: its attacks by class name or alias, at fixed eps or as a minimisation.

Fixed-eps attacks return the images clipped to the ball, as Foolbox judges them; minimisation attacks run without an
eps. The arguments of the constructor are the parameters, except `distance`, which follows from the threat.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from bench.attacks.base import Attack, AttackRequest, Unsupported, keyword_form, library_version
from bench.attacks.budgets import (
    ENOUGH_QUERIES,
    GREEDY,
    check_params,
    searches_nothing,
    short_budgets,
    short_of,
    short_of_steps,
    step_notes,
)
from bench.attacks.libraries.isolation import library_call
from bench.attacks.libraries.source import LibrarySource
from defenses.utils.errors import unknown
from defenses.utils.introspection import ClassFacts, Parameters
from defenses.utils.json_values import Json, JsonView

if TYPE_CHECKING:
    from torch import Tensor

    from bench.spec.threat import ThreatModel

SOURCE = LibrarySource("foolbox", "attacks")
_HOP = "HopSkipJumpAttack"  # declares L1, and minimises the norm of its `constraint`
_CONSTRAINTS = {"Linf": "linf", "L2": "l2"}
_UNTARGETED = ("VirtualAdversarialAttack", "NewtonFoolAttack")
_UNTARGETED_KINDS = ("DeepFoolAttack", "FastGradientAttack")  # at the end of a name


def names() -> list[str]:
    """Return the local names, with aliases."""
    return sorted(set(SOURCE.exports()) - {"Attack"})


def find(local: str, params: dict[str, object]) -> Attack:
    """Return an attack of Foolbox; see `bench.attacks.registry.find_attack`."""
    SOURCE.check_name(local, names())
    name, facts = f"foolbox:{local}", SOURCE.facts(local)
    check_params(name, params, parameters(local).names)
    _check_init_attack(name, params)
    return Attack(
        name=name,
        run=keyword_form(partial(_run, facts)),
        minimisation="MinimizationAttack" in facts.bases,
        version=f"foolbox {library_version('foolbox')}",
        load=partial(importlib.import_module, "foolbox"),
        warnings=(*_short(facts, params), *searches_nothing(facts.parameters.defaults, params)),
        notes=partial(_notes, facts),
    )


def parameters(local: str) -> Parameters:
    """Return the parameters of an attack; see `bench.attacks.registry.attack_parameters`."""
    return SOURCE.facts(local).parameters.without("distance")


def _short(facts: ClassFacts, params: dict[str, object]) -> tuple[str, ...]:
    defaults = facts.parameters.defaults
    if facts.name.endswith("DeepFoolAttack"):
        return (GREEDY, *short_budgets(defaults, params))
    if facts.name == "BoundaryAttack":  # its steps are queries
        return short_of(params, {"steps": ENOUGH_QUERIES})
    if "FixedEpsilonAttack" in facts.bases and "rel_stepsize" in facts.parameters.names:
        return short_of_steps(defaults, params)
    return short_budgets(defaults, params)


def _notes(facts: ClassFacts, threat: ThreatModel, _num_classes: int, params: Json) -> tuple[str, ...]:
    """Return the warnings of a step size that does not fit the ball."""
    values, eps = {**facts.parameters.defaults, **params}, float(threat.eps)
    if "FixedEpsilonAttack" not in facts.bases:
        return ()
    size = values.get("abs_stepsize")
    if size is None and isinstance(relative := values.get("rel_stepsize"), int | float):
        size = relative * eps
    return step_notes(values.get("steps"), size, eps, threat.norm)


def _check_init_attack(name: str, params: dict[str, object]) -> None:
    """Refuse an `init_attack` that is no minimisation of Foolbox."""
    init = params.get("init_attack")
    if init is not None and (init not in names() or "MinimizationAttack" not in SOURCE.facts(init).bases):
        minimisations = [n for n in names() if "MinimizationAttack" in SOURCE.facts(n).bases]
        raise unknown(f"init_attack of {name}", str(init), minimisations)


def _run(facts: ClassFacts, view: object, request: AttackRequest) -> Tensor:
    x, threat, target = request.x.clone(), request.threat, request.target
    stochastic = getattr(view, "stochastic", False)
    _refuse(facts, target, request.params, stochastic=stochastic)
    from foolbox.criteria import Misclassification, TargetedMisclassification
    from foolbox.models.pytorch import PyTorchModel

    fixed = "FixedEpsilonAttack" in facts.bases
    with library_call(request.seed, x.device):
        model = PyTorchModel(view, bounds=(0, 1), device=x.device)
        attack = _construct(facts, threat, request.params, model, x)
        criterion = Misclassification(request.y) if target is None else TargetedMisclassification(target)
        starts = {} if target is None or not _starts(facts) else {"starting_points": _images_of(view, x, target)}
        try:
            found: Tensor = attack(model, x, criterion, epsilons=float(threat.eps) if fixed else None, **starts)[1]
        except AssertionError as error:
            if stochastic:
                raise Unsupported(f"{facts.name} asserts that the same image is answered alike twice") from error
            raise
        except ValueError as error:
            if "init_attack failed" in str(error):
                raise Unsupported(_no_start(facts.name, stochastic=stochastic)) from error
            raise
    return found.detach().clone().to(x.dtype)


def _refuse(facts: ClassFacts, target: Tensor | None, params: Mapping[str, object], *, stochastic: bool) -> None:
    """Refuse pairs of attack and threat or defense that cannot run."""
    if not {"FixedEpsilonAttack", "MinimizationAttack"} & set(facts.bases):
        raise Unsupported(f"{facts.name} rotates and shifts images: no norm bounds it")
    missing = [n for n in facts.parameters.required if n not in params]
    if missing:
        raise Unsupported(f'{facts.name} needs "{missing[0]}"; give it in the board')
    if "BrendelBethgeAttack" in facts.bases and importlib.util.find_spec("numba") is None:
        raise Unsupported(f"{facts.name} needs numba, which is not installed")
    if facts.name == "BinarizationRefinementAttack":
        raise Unsupported(f"{facts.name} only refines what another attack has found on binarised inputs")
    if facts.name == "GenAttack" and target is None:
        raise Unsupported("GenAttack only runs targeted")
    if target is not None and (facts.name in _UNTARGETED or facts.name.endswith(_UNTARGETED_KINDS)):
        raise Unsupported(f"{facts.name} has no targeted mode")
    if facts.name == _HOP and stochastic:
        raise Unsupported(f"{_HOP} halves its step until all images are adversarial at once: no end if answers vary")


def _no_start(name: str, *, stochastic: bool) -> str:
    """Return the reason why an attack found no starting point."""
    if stochastic:
        return f"{name} starts on the decision boundary, where varying answers undo its start"
    return f'{name} found no start by noise for some images; give init_attack = "DatasetAttack"'


def _starts(facts: ClassFacts) -> bool:
    """Return True if an attack walks from an image of the target class, which it cannot find by noise."""
    return "init_attack" in facts.parameters.names and "FMNAttackLp" not in facts.bases


def _construct(facts: ClassFacts, threat: ThreatModel, params: JsonView, model: object, x: Tensor) -> Any:
    """Return the library's attack object."""
    import foolbox

    arguments = dict(params)
    if "distance" in facts.parameters.names:
        p = {"Linf": math.inf, "L2": 2, "L1": 1, "L0": 0}[threat.norm]
        arguments["distance"] = foolbox.distances.LpDistance(p)
    if arguments.get("init_attack") is not None:
        arguments["init_attack"] = _construct(SOURCE.facts(arguments["init_attack"]), threat, {}, model, x)
    if facts.name == _HOP:
        if threat.norm not in _CONSTRAINTS:
            raise Unsupported(f"{_HOP} minimises Linf or L2, the threat is {threat.norm}")
        arguments.setdefault("constraint", _CONSTRAINTS[threat.norm])
    attack = getattr(foolbox.attacks, facts.name)(**arguments)
    if "FlexibleDistanceMinimizationAttack" not in facts.bases:
        norm = {math.inf: "Linf", 2: "L2", 1: "L1", 0: "L0"}[attack.distance.p]
        if norm != threat.norm:
            raise Unsupported(f"{facts.name} works in {norm}, the threat is {threat.norm}")
    if facts.name == "DatasetAttack":
        attack.feed(model, x)
    return attack


def _images_of(view: Any, x: Tensor, target: Tensor) -> Tensor:
    """Return, for every image, the nearest image (L2) of the block that is classified as its target class."""
    import torch

    with torch.no_grad():
        predicted = view(x).argmax(1)
    distances = torch.cdist(x.flatten(1), x.flatten(1))
    distances[predicted[None, :] != target[:, None]] = math.inf
    distance, nearest = distances.min(1)
    if distance.isinf().any():
        wanted = int(target[distance.isinf()][0])
        raise Unsupported(f"no image of the block is taken for class {wanted}, from which to start")
    return x[nearest].clone()
