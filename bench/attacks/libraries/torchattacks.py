"""torchattacks: any of its classes by its own name.

The arguments of the constructor are the parameters, except those that follow from the threat and the data: eps (also
as `max_epsilon`), norm, n_classes and seed; `pixels` of OnePixel is eps unless given. A step size that the board does
not give is the library's default scaled with eps: 2/255 at 8/255 is a quarter of eps.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.attacks.base import Attack, Unsupported, library_version
from bench.attacks.budgets import GREEDY, check_params, short_budgets, short_of_steps
from bench.attacks.libraries.isolation import library_call
from bench.attacks.libraries.square_tiles import check_tiles
from defenses.utils.errors import UserError, unknown
from defenses.utils.introspection import ClassFacts, class_facts, exported, package_folder

if TYPE_CHECKING:
    from torch import Tensor

    from bench.spec.threat import ThreatModel

_RADII = ("eps", "max_epsilon", "pixels")
_OURS = ("model", "eps", "max_epsilon", "norm", "n_classes", "seed", "verbose")
_THREE_CHANNELS = ("TIFGSM", "PIFGSM", "PIFGSMPP")
_SQUARE_IMAGES = ("DIFGSM", "TIFGSM", "Pixle")  # the first two resize to a square, Pixle takes x for y
_IMPOSSIBLE = {
    "LGV": "LGV trains surrogate networks on a train loader, which a view does not have",
    "MultiAttack": "MultiAttack drops images after one forward; list its attacks one by one, tables take the worst",
}
_LEAVES_BOX = ("EADL1", "EADEN")  # by about 1e-5 [measured]
_ONE_STEP = "takes one step; report no robustness from it alone"
_SAID = {  # standing of 200 digits, PGD-AT: DeepFool 54.5%, CW 78.0%, autoattack:apgd-t 2.5% at L2 1; TPGD with 100
    # steps 72.0%, FGSM 71.0%, FFGSM 73.5%, PGD 61.0% at Linf 1/5; of 100 at L0 5: JSMA 90.0%, SparseFool 32.0%,
    # OnePixel of 20 steps 4.0% [measured]
    "AutoAttack": "runs 10 iterations where AutoAttack runs 100; use autoattack:standard",
    "CW": "cannot move pixels that are exactly 0 or 1, and searches no constant c",
    "TPGD": "leaves the clean answer behind and never looks at the label; use PGD",
    "DeepFool": GREEDY,
    "FFGSM": _ONE_STEP,
    "FGSM": _ONE_STEP,
    "JSMA": "untargeted, it tries one class alone, y + 1",
    "SparseFool": GREEDY,
}
_WEAK = {  # parameter, the value from which on it is no longer weak
    "OnePixel": {"steps": 75, "popsize": 400},
    "SPSA": {"nb_iter": 50},  # 97.0% standing at 1, 74.5% at 20, 68.0% at 50; PGD leaves 61.0% [measured, as below]
    "EOTPGD": {"eot_iter": 10},
    "Pixle": {"max_iterations": 50},  # of 100 digits at L0 20: 31.0% standing at 10, 21.0% at 50 and at 500 [measured]
}


def names() -> list[str]:
    """The local names."""
    file = _exports_file()
    return sorted(exported(file)) if file else []


def find(local: str, params: dict[str, Any]) -> Attack:
    """See `bench.attacks.registry.find_attack`."""
    name = f"torchattacks:{local}"
    if _exports_file() is None:
        raise UserError(f"{name}: torchattacks is not installed; pip install torchattacks")
    if local not in names():
        raise unknown("attack", name, [f"torchattacks:{n}" for n in names()])
    facts = _facts(local)
    check_params(name, params, [n for n in facts.parameters.names if n not in _OURS])
    return Attack(
        name=name,
        run=partial(_run, local),
        minimisation=not set(_RADII) & set(facts.parameters.names) and local not in (*_IMPOSSIBLE, "VANILA"),
        version=f"torchattacks {library_version('torchattacks')}",
        load=partial(importlib.import_module, "torchattacks"),
        warnings=_warnings(local, params),
        notes=partial(_notes, local),
    )


def _exports_file() -> Path | None:
    folder = package_folder("torchattacks")
    return folder / "__init__.py" if folder else None


def _facts(local: str) -> ClassFacts:
    file = _exports_file()
    assert file is not None
    source = exported(file)[local]
    assert isinstance(source, Path)
    return class_facts(source, local)


def _warnings(local: str, params: dict[str, Any]) -> tuple[str, ...]:
    defaults = _facts(local).parameters.defaults
    found = [
        f"{key} {params.get(key, defaults[key])} is weak; publish nothing below {enough}"
        for key, enough in _WEAK.get(local, {}).items()
        if params.get(key, defaults[key]) < enough
    ]
    told = {*_WEAK.get(local, {})}
    if local not in _WEAK.keys() - {"EOTPGD"} and (local == "CW" or set(_RADII) & set(defaults)):
        found += short_of_steps(defaults, params)
        told.add("steps")
    found += short_budgets(defaults, params, told)
    found += short_of_steps(defaults, params, "num_iter_set")  # PIFGSM: 65.5% standing at 10, 63.5% at 100 [measured]
    if local in _SAID:
        found.append(_SAID[local])
    if local in _LEAVES_BOX:
        found.append("leaves [0, 1] by about 1e-5; its images are clamped")
    return tuple(found)


def _notes(local: str, threat: ThreatModel, num_classes: int, params: dict[str, Any]) -> tuple[str, ...]:
    defaults = _facts(local).parameters.defaults
    notes = []
    if "alpha" in defaults and "eps" in defaults:
        eps = float(threat.eps)
        alpha = params.get("alpha", _scaled_alpha(defaults, eps))
        if "alpha" not in params and eps != defaults["eps"]:
            notes.append(f"alpha is the library's default scaled with eps, {alpha:.4g}")
        steps = params.get("steps", defaults.get("steps", 1))
        if alpha * steps < eps:
            notes.append(f"{steps} steps of {alpha:.4g} cannot cross the ball of {eps:.4g}")
    if local == "JSMA" and not threat.targeted and num_classes != 10:
        notes.append("aims at class y + 1, as the library does for ten classes")
    return tuple(notes)


def _scaled_alpha(defaults: Mapping[str, Any], eps: float) -> float:
    return float(defaults["alpha"] * (eps / defaults["eps"]))


def _run(
    local: str,
    view: Any,
    x: Tensor,
    y: Tensor,
    *,
    threat: ThreatModel,
    target: Tensor | None,
    seed: int,
    num_classes: int,
    indices: Tensor | None = None,  # noqa: ARG001
    **params: Any,
) -> Tensor:
    _refuse(local, threat, tuple(x.shape[1:]), num_classes, params)
    if local == "FAB" and target is not None:
        raise Unsupported("FAB of torchattacks skips every image that is not yet of the target class")
    import torchattacks

    with library_call(seed, x.device):
        cls = getattr(torchattacks, local)
        attack = cls(view, **_arguments(cls, threat, seed, num_classes, params))
        attack.set_device(x.device)
        if target is not None:
            if "targeted" not in attack.supported_mode:
                raise Unsupported(f"{local} has no targeted mode")
            attack.set_mode_targeted_by_label(quiet=True)
        elif local == "JSMA" and num_classes != 10:
            # Its untargeted mode aims at (y + 1) % 10, whatever the number of classes.
            attack.set_mode_targeted_by_function(lambda _, labels: (labels + 1) % num_classes, quiet=True)
        x_adv = attack(x.clone(), y if target is None else target)
    x_adv = x_adv.detach().clone().to(x.dtype)
    return x_adv.clamp_(0, 1) if local in _LEAVES_BOX else x_adv  # type: ignore[no-any-return]


def _refuse(local: str, threat: ThreatModel, shape: tuple[int, ...], num_classes: int, params: dict[str, Any]) -> None:
    """The pairs that are known not to run, before anything does."""
    if local in _IMPOSSIBLE:
        raise Unsupported(_IMPOSSIBLE[local])
    norms = _norms(_facts(local))
    if local == "FAB" and threat.norm == "L1":
        raise Unsupported("FAB of torchattacks fails in L1 (it never computes the distance); use autoattack:fab")
    if norms and threat.norm not in norms:
        raise Unsupported(f"{local} works in {' and '.join(norms)}, the threat is {threat.norm}")
    _refuse_images(local, threat.norm, shape, params)
    need = {"APGDT": 4, "AutoAttack": 3 if params.get("version") == "rand" else 4}.get(local, 2)
    if local == "APGD" and params.get("loss") == "dlr":
        need = 3
    if num_classes < need:
        raise Unsupported(f"the DLR loss of {local} needs {need} classes, the data set has {num_classes}")


def _refuse_images(local: str, norm: str, shape: tuple[int, ...], params: dict[str, Any]) -> None:
    channels, height, width = shape
    if local in _THREE_CHANNELS and channels != 3:
        raise Unsupported(f"{local} needs images of 3 channels, these have {channels}")
    if local in _SQUARE_IMAGES and height != width:
        raise Unsupported(f"{local} needs square images, these are {height}x{width}")
    if local == "Square" or (local == "AutoAttack" and params.get("version") != "rand"):
        if norm == "L2" and height != width:
            raise Unsupported(f"{local} needs square images in L2, these are {height}x{width}; use autoattack:square")
        check_tiles(local, norm, height, width)


def _norms(facts: ClassFacts) -> tuple[str, ...]:
    """What the class's docstring declares; nothing for noise and for the unchanged image."""
    declared = re.search(r"Distance Measure\s*:(.*)", facts.doc)
    return tuple(re.findall(r"Linf|L2|L1|L0", declared[1])) if declared else ()


def _arguments(cls: Any, threat: ThreatModel, seed: int, num_classes: int, params: dict[str, Any]) -> dict[str, Any]:
    takes = {k: p.default for k, p in inspect.signature(cls.__init__).parameters.items()}
    ours: dict[str, Any] = {
        "eps": float(threat.eps),
        "max_epsilon": float(threat.eps),
        "pixels": int(threat.eps),
        "norm": threat.norm,
        "n_classes": num_classes,
        "seed": seed,
    }
    if "alpha" in takes and "eps" in takes:
        ours["alpha"] = _scaled_alpha(takes, float(threat.eps))
    return {k: v for k, v in ours.items() if k in takes} | params
