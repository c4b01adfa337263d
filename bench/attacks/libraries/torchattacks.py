"""torchattacks: its attacks by class name.

The arguments of the constructor are the parameters, except those that follow from the threat and the data: eps (also
as `max_epsilon`), norm, n_classes and seed; `pixels` of OnePixel is eps by default. A step size that the board does
not set is the library's default scaled with eps: 2/255 at 8/255 is a quarter of eps.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from bench.attacks.base import Attack, AttackRequest, Unsupported, keyword_form, library_version
from bench.attacks.budgets import GREEDY, check_params, searches_nothing, short_budgets, short_of_steps, step_notes
from bench.attacks.libraries.isolation import library_call
from bench.attacks.libraries.source import LibrarySource
from bench.attacks.libraries.square_tiles import check_tiles
from defenses.utils.introspection import ClassFacts, Parameters
from defenses.utils.json_values import Json, JsonView

if TYPE_CHECKING:
    from torch import Tensor

    from bench.spec.threat import ThreatModel

SOURCE = LibrarySource("torchattacks")
_RADII = ("eps", "max_epsilon", "pixels")
_SET_HERE = ("model", "eps", "max_epsilon", "norm", "n_classes", "seed", "verbose")
_THREE_CHANNELS = ("TIFGSM", "PIFGSM", "PIFGSMPP")
_SQUARE_IMAGES = ("DIFGSM", "TIFGSM", "Pixle")  # the first two resize to a square, Pixle swaps x and y
_IMPOSSIBLE = {
    "LGV": "LGV trains surrogate networks on a train loader, which a view does not have",
    "MultiAttack": "MultiAttack drops images after one forward; list its attacks one by one, tables take the worst",
}
_LEAVES_BOX = ("EADL1", "EADEN")
_ONE_STEP = "takes one step; report no robustness from it alone"
_WARNINGS = {
    "AutoAttack": "runs 10 iterations where AutoAttack runs 100; use autoattack:standard",
    "CW": "cannot move pixels that are exactly 0 or 1, and searches no constant c",
    "TPGD": "leaves the clean answer behind and never looks at the label; use PGD",
    "DeepFool": GREEDY,
    "FFGSM": _ONE_STEP,
    "FGSM": _ONE_STEP,
    "JSMA": "untargeted, it tries one class alone, y + 1",
    "SparseFool": GREEDY,
}
_WEAK = {  # least value of a parameter without a warning
    "OnePixel": {"steps": 75, "popsize": 400},
    "SPSA": {"nb_iter": 50},
    "EOTPGD": {"eot_iter": 10},
    "Pixle": {"max_iterations": 50},
}


def names() -> list[str]:
    """Return the local names."""
    return sorted(SOURCE.exports())


def find(local: str, params: dict[str, object]) -> Attack:
    """Return an attack of torchattacks; see `bench.attacks.registry.find_attack`."""
    SOURCE.check_name(local, names())
    name, facts = f"torchattacks:{local}", SOURCE.facts(local)
    check_params(name, params, parameters(local).names)
    return Attack(
        name=name,
        run=keyword_form(partial(_run, local)),
        minimisation=not set(_RADII) & set(facts.parameters.names) and local not in (*_IMPOSSIBLE, "VANILA"),
        version=f"torchattacks {library_version('torchattacks')}",
        load=partial(importlib.import_module, "torchattacks"),
        warnings=_warnings(local, params),
        notes=partial(_notes, local),
    )


def parameters(local: str) -> Parameters:
    """Return the parameters of an attack; see `bench.attacks.registry.attack_parameters`."""
    return SOURCE.facts(local).parameters.without(*_SET_HERE)


def _warnings(local: str, params: Json) -> tuple[str, ...]:
    defaults = SOURCE.facts(local).parameters.defaults
    warnings = [
        f"{key} {params.get(key, defaults[key])} is weak; publish nothing below {enough}"
        for key, enough in _WEAK.get(local, {}).items()
        if params.get(key, defaults[key]) < enough
    ]
    warned = {*_WEAK.get(local, {})}
    if local not in _WEAK.keys() - {"EOTPGD"} and (local == "CW" or set(_RADII) & set(defaults)):
        warnings += short_of_steps(defaults, params)
        warned.add("steps")
    warnings += short_budgets(defaults, params, warned)
    warnings += searches_nothing(defaults, params)
    warnings += short_of_steps(defaults, params, "num_iter_set")  # of PIFGSM
    if local in _WARNINGS:
        warnings.append(_WARNINGS[local])
    if local in _LEAVES_BOX:
        warnings.append("leaves [0, 1] by about 1e-5; its images are clamped")
    return tuple(warnings)


def _notes(local: str, threat: ThreatModel, num_classes: int, params: dict[str, object]) -> tuple[str, ...]:
    defaults = SOURCE.facts(local).parameters.defaults
    notes = []
    if "alpha" in defaults and "eps" in defaults:
        eps = float(threat.eps)
        alpha = params.get("alpha", _scaled_alpha(defaults, eps))
        if "alpha" not in params and eps != defaults["eps"]:
            notes.append(f"alpha is the library's default scaled with eps, {alpha:.4g}")
        steps = params.get("steps", defaults.get("steps", 1))
        notes += step_notes(steps, alpha, eps, threat.norm)
    if local == "JSMA" and not threat.targeted and num_classes != 10:
        notes.append("aims at class y + 1, as the library does for ten classes")
    return tuple(notes)


def _scaled_alpha(defaults: JsonView, eps: float) -> float:
    """Return the default step size, scaled from the default eps to eps."""
    return float(defaults["alpha"] * (eps / defaults["eps"]))


def _run(local: str, view: object, request: AttackRequest) -> Tensor:
    _refuse(local, request)
    x, target, num_classes = request.x, request.target, request.num_classes
    if local == "FAB" and target is not None:
        raise Unsupported("FAB of torchattacks skips every image that is not yet of the target class")
    import torchattacks

    with library_call(request.seed, x.device):
        cls = getattr(torchattacks, local)
        attack = cls(view, **_arguments(cls, request))
        attack.set_device(x.device)
        if target is not None:
            if "targeted" not in attack.supported_mode:
                raise Unsupported(f"{local} has no targeted mode")
            attack.set_mode_targeted_by_label(quiet=True)
        elif local == "JSMA" and num_classes != 10:
            # Its untargeted mode aims at (y + 1) % 10, whatever the number of classes.
            attack.set_mode_targeted_by_function(lambda _, labels: (labels + 1) % num_classes, quiet=True)
        x_adv: Tensor = attack(x.clone(), request.y if target is None else target)
    x_adv = x_adv.detach().clone().to(x.dtype)
    return x_adv.clamp_(0, 1) if local in _LEAVES_BOX else x_adv


def _refuse(local: str, request: AttackRequest) -> None:
    """Refuse pairs of attack and threat, images or classes that cannot run."""
    threat, num_classes, params = request.threat, request.num_classes, request.params
    if local in _IMPOSSIBLE:
        raise Unsupported(_IMPOSSIBLE[local])
    norms = _norms(SOURCE.facts(local))
    if local == "FAB" and threat.norm == "L1":
        raise Unsupported("FAB of torchattacks fails in L1 (it never computes the distance); use autoattack:fab")
    if norms and threat.norm not in norms:
        raise Unsupported(f"{local} works in {' and '.join(norms)}, the threat is {threat.norm}")
    _refuse_images(local, threat.norm, tuple(request.x.shape[1:]), params)
    need = {"APGDT": 4, "AutoAttack": 3 if params.get("version") == "rand" else 4}.get(local, 2)
    if local == "APGD" and params.get("loss") == "dlr":
        need = 3
    if num_classes < need:
        raise Unsupported(f"the DLR loss of {local} needs {need} classes, the data set has {num_classes}")


def _refuse_images(local: str, norm: str, shape: tuple[int, ...], params: Mapping[str, object]) -> None:
    """Refuse images of a shape [C, H, W] on which the library fails."""
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
    """Return the norms that the class's docstring declares; () for noise and for the unchanged image."""
    declared = re.search(r"Distance Measure\s*:(.*)", facts.doc)
    return tuple(re.findall(r"Linf|L2|L1|L0", declared[1])) if declared else ()


def _arguments(cls: Any, request: AttackRequest) -> dict[str, object]:
    """Return the arguments of the constructor, those of the board among them."""
    takes = {k: p.default for k, p in inspect.signature(cls.__init__).parameters.items()}
    eps = request.threat.eps
    values: dict[str, object] = {
        "eps": float(eps),
        "max_epsilon": float(eps),
        "pixels": int(eps),
        "norm": request.threat.norm,
        "n_classes": request.num_classes,
        "seed": request.seed,
    }
    if "alpha" in takes and "eps" in takes:
        values["alpha"] = _scaled_alpha(takes, float(eps))
    return {k: v for k, v in values.items() if k in takes} | dict(request.params)
