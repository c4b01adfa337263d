"""AutoAttack (Croce and Hein 2020): its versions, its single attacks, and APGD's best-loss iterate.

The package is fra31's `autoattack` where it is installed, else PyPI's `pyautoattack`: the same program with another
signature. A single attack runs as `version="custom"`, with the defaults of that version (five restarts).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from bench.attacks.base import Attack, AttackRequest, Unsupported, keyword_form, library_version
from bench.attacks.budgets import ENOUGH_QUERIES, ENOUGH_STEPS, check_params, searches_nothing, short_of
from bench.attacks.libraries.isolation import library_call
from bench.attacks.libraries.square_tiles import check_tiles
from defenses.utils.errors import UserError, gathered, unknown
from defenses.utils.introspection import Parameters
from defenses.utils.json_values import Json
from defenses.utils.validation import Count, under, validated

if TYPE_CHECKING:
    from torch import Tensor

    from bench.spec.threat import ThreatModel

VERSIONS = {  # the single attacks of each version
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
}
_SINGLE = ("apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square")
_BEST_LOSS = {"apgd-ce-best-loss": "ce", "apgd-dlr-best-loss": "dlr"}
_PART = {
    "apgd-ce": "apgd",
    "apgd-dlr": "apgd",
    "apgd-t": "apgd_targeted",
    "fab": "fab",
    "fab-t": "fab",
    "square": "square",
}
# A part's constructor argument -> the attribute that holds it.
_APGD = {"n_iter": "n_iter", "n_restarts": "n_restarts", "eot_iter": "eot_iter", "rho": "thr_decr"}
_APGD["use_largereps"] = "use_largereps"
_FAB = {name: name for name in ("n_iter", "n_restarts", "alpha_max", "eta", "beta")}
_SQUARE = {name: name for name in ("n_queries", "n_restarts", "p_init", "loss")}
_SETTINGS = {
    "apgd": _APGD,
    "apgd_targeted": _APGD | {"n_target_classes": "n_target_classes"},
    "fab": _FAB | {"n_target_classes": "n_target_classes"},
    "square": _SQUARE | {"resc_schedule": "rescale_schedule"},
}
_FAB_DEFAULTS = {"alpha_max": 0.1, "eta": 1.05, "beta": 0.9}
_APGD_DEFAULTS = {"n_iter": 100, "n_restarts": 5, "eot_iter": 1, "rho": 0.75, "use_largereps": False}
_PART_DEFAULTS: dict[str, Json] = {  # of version="custom", in Linf and L2
    "apgd": _APGD_DEFAULTS,
    "apgd_targeted": {**_APGD_DEFAULTS, "n_restarts": 1, "n_target_classes": 9},
    "fab": {"n_iter": 100, "n_restarts": 5, **_FAB_DEFAULTS, "n_target_classes": 9},
    "square": {"n_queries": 5000, "n_restarts": 1, "p_init": 0.8, "loss": "margin", "resc_schedule": False},
}
_VERSION_DEFAULTS: dict[str, dict[str, dict[str, object]]] = {  # where they differ
    "standard": {"apgd": {"n_restarts": 1}, "fab": {"n_restarts": 1}},
    "rand": {"apgd": {"n_restarts": 1, "eot_iter": 20}},
}
_L1_DEFAULTS: dict[str, dict[str, object]] = {  # of version="standard"
    "apgd": {"n_restarts": 5, "use_largereps": True},
    "apgd_targeted": {"n_target_classes": 5, "use_largereps": True},
}
_DEFAULTS = {"rho": 0.75, **_FAB_DEFAULTS, "p_init": 0.8}  # above 0 in all parts
_COUNTS = ("n_iter", "n_restarts", "eot_iter", "n_queries", "n_target_classes")
# Classes that a loss needs; with fewer, the library fails.
_LEAST_CLASSES = {"apgd-dlr": 3, "apgd-t": 4}


def names() -> list[str]:
    """Return the local names."""
    return [*VERSIONS, *_SINGLE, *_BEST_LOSS, "custom"]


def find(local: str, params: dict[str, object]) -> Attack:
    """Return an attack of AutoAttack; see `bench.attacks.registry.find_attack`."""
    name = f"autoattack:{local}"
    if local not in names():
        raise unknown("attack", name, [f"autoattack:{n}" for n in names()])
    attacks = _attacks(local, params)
    check_params(name, params, [*_settings(attacks), *(["attacks"] if local == "custom" else [])])
    gathered(lambda key: validated(Count, params.get(key, 1), name=under(f"{name}: {key}")), _COUNTS)
    return Attack(
        name=name,
        run=keyword_form(partial(_run, local)),
        minimisation=False,
        version=_version(),
        warnings=_warnings(attacks, params),
        notes=partial(_notes, attacks),
        load=_library,
    )


def _settings(attacks: tuple[str, ...]) -> list[str]:
    """Return the parameters of some single attacks."""
    names = {key for a in attacks for key in _SETTINGS[_PART[a]] if (a, key) != ("fab-t", "n_restarts")}
    return sorted(names if {"apgd-t", "fab-t"} & set(attacks) else names - {"n_target_classes"})


def parameters(local: str) -> Parameters:
    """Return the parameters of an attack; see `bench.attacks.registry.attack_parameters`."""
    attacks = _SINGLE if local == "custom" else _attacks(local, {})
    names = _settings(attacks)
    values = defaults_of(local)
    shown = {}
    for key in names:
        by_part = {_PART[a]: values[_PART[a]][key] for a in attacks if key in values[_PART[a]]}
        shown[key] = next(iter(by_part.values())) if len(set(by_part.values())) == 1 else by_part
    required = ("attacks",) if local == "custom" else ()
    return Parameters((*required, *names), required, defaults=shown)


def defaults_of(local: str, norm: str = "Linf") -> dict[str, dict[str, object]]:
    """Return the defaults of an attack by part of AutoAttack.

    Args:
        local: a name of `names`.
        norm: "Linf", "L2" or "L1".
    """
    changed = _VERSION_DEFAULTS.get(local, {})
    largest = _L1_DEFAULTS if (local, norm) == ("standard", "L1") else {}
    return {part: {**v, **changed.get(part, {}), **largest.get(part, {})} for part, v in _PART_DEFAULTS.items()}


def _attacks(local: str, params: Mapping[str, object]) -> tuple[str, ...]:
    """Return the single attacks that an attack runs."""
    if local in _BEST_LOSS:
        return (local.removesuffix("-best-loss"),)
    if local != "custom":
        return VERSIONS.get(local, (local,))
    attacks = params.get("attacks")
    if not isinstance(attacks, Sequence) or isinstance(attacks, str) or not attacks:
        raise UserError(f'autoattack:custom needs a list "attacks", as ["apgd-ce", "square"]; it is {attacks!r}')
    for a in attacks:
        if a not in _SINGLE:
            raise unknown("attack in autoattack:custom", str(a), _SINGLE)
    return tuple(attacks)


def _version() -> str:
    for distribution in ("autoattack", "pyautoattack"):
        if version := library_version(distribution):
            return f"{distribution} {version}"
    return "autoattack not installed"


def _warnings(attacks: tuple[str, ...], params: dict[str, object]) -> tuple[str, ...]:
    enough = {} if attacks == ("square",) else {"n_iter": ENOUGH_STEPS}
    short = short_of(params, enough | ({"n_queries": ENOUGH_QUERIES} if "square" in attacks else {}))
    back = ("beta = 0 takes every adversarial image of FAB back to the clean one",) if params.get("beta") == 0 else ()
    return (*short, *searches_nothing(_DEFAULTS, params), *back)


def _notes(attacks: tuple[str, ...], _threat: ThreatModel, num_classes: int, params: Json) -> tuple[str, ...]:
    notes = []
    left_out = _left_out(attacks, num_classes)
    if left_out and len(left_out) < len(attacks):
        notes.append(f"{num_classes} classes: {' and '.join(left_out)} left out, its loss needs more logits")
    targeting = {"apgd-t", "fab-t"} & set(attacks) - set(left_out)
    if targeting and params.get("n_target_classes", 9) > num_classes - 1:
        notes.append(f"{num_classes} classes: the targeted attacks try all {num_classes - 1} others")
    return tuple(notes)


def _left_out(attacks: tuple[str, ...], num_classes: int) -> tuple[str, ...]:
    """Return the single attacks whose loss needs more classes."""
    return tuple(a for a in attacks if num_classes < _LEAST_CLASSES.get(a, 2))


def _run(local: str, view: object, request: AttackRequest) -> Tensor:
    x, target, num_classes = request.x, request.target, request.num_classes
    attacks = _runnable(local, request)
    with library_call(request.seed, x.device, "auto-attack"):
        suite = _build(local, view, attacks, request)
        _set(suite, attacks, request.params, num_classes)
        if local in _BEST_LOSS:
            suite.apgd.loss = _BEST_LOSS[local]
            found: Tensor = suite.apgd.perturb(x.clone(), request.y, best_loss=True)
            return found.detach()
        if target is not None:
            suite.square.targeted = True
            found = suite.square.perturb(x.clone(), target)
            return found.detach()
        return _evaluate(suite, x.clone(), request.y)


def _runnable(local: str, request: AttackRequest) -> tuple[str, ...]:
    """Return the single attacks that can run on a request.

    Raises:
        Unsupported: none can.
    """
    attacks, num_classes = _attacks(local, request.params), request.num_classes
    if request.threat.norm == "L0":
        raise Unsupported("AutoAttack has the norms Linf, L2 and L1, not L0")
    if request.target is not None and attacks != ("square",):
        raise Unsupported("AutoAttack's attacks choose their target classes themselves; only square takes a given one")
    left_out = _left_out(attacks, num_classes)
    attacks = tuple(a for a in attacks if a not in left_out)
    if not attacks:
        need = max(_LEAST_CLASSES[a] for a in left_out)
        raise Unsupported(f"the loss of {', '.join(left_out)} needs {need} classes, the data set has {num_classes}")
    if "square" in attacks:
        check_tiles("square", request.threat.norm, *request.x.shape[2:])
    return attacks


def _library() -> Any:
    if library_version("autoattack"):
        from autoattack import AutoAttack
    elif library_version("pyautoattack"):
        from pyautoattack import AutoAttack
    else:
        raise Unsupported("AutoAttack is not installed: pip install pyautoattack")
    return AutoAttack


def _build(local: str, view: object, attacks: Sequence[str], request: AttackRequest) -> Any:
    """Return the library's AutoAttack object."""
    library, threat = _library(), request.threat
    takes = inspect.signature(library.__init__).parameters
    options: dict[str, object] = {"norm": threat.norm, "eps": float(threat.eps)}
    options |= {"seed": request.seed, "device": request.x.device}
    if "verbose" in takes:
        options["verbose"] = False
    if local in VERSIONS:
        suite = library(view, version=local, **options)
        suite.attacks_to_run = list(attacks)
        return suite
    listed = "attacks" if "attacks" in takes else "attacks_to_run"
    return library(view, version="custom", **options, **{listed: list(attacks)})


def _set(suite: object, attacks: Sequence[str], params: Mapping[str, object], num_classes: int) -> None:
    """Set the parameters of every part, by the attributes that AutoAttack's manual names."""
    for name in dict.fromkeys(_PART[a] for a in attacks):
        part = getattr(suite, name)
        for key, attribute in _SETTINGS[name].items():
            if key in params:
                setattr(part, attribute, params[key])
        if "n_iter" in params and name.startswith("apgd"):
            # The checkpoints are computed from n_iter in the constructor.
            fresh = type(part)(part.model, n_iter=params["n_iter"], norm=part.norm, eps=part.eps)
            for attribute in ("n_iter_orig", "n_iter_2", "n_iter_min", "size_decr"):
                setattr(part, attribute, getattr(fresh, attribute))
        if hasattr(part, "n_target_classes"):
            part.n_target_classes = min(part.n_target_classes, num_classes - 1)


def _evaluate(suite: Any, x: Tensor, y: Tensor) -> Tensor:
    """Return the adversarial images of the whole evaluation."""
    evaluate = suite.run_standard_evaluation
    batch = "batch_size" if "batch_size" in inspect.signature(evaluate).parameters else "bs"
    result = evaluate(x, y, **{batch: len(x)})
    x_adv: Tensor = result[0] if isinstance(result, tuple) else result
    return x_adv.detach()
