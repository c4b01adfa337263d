"""Checks of attack parameters, and warnings of small budgets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from defenses.utils.errors import UserError, unknown
from defenses.utils.json_values import JsonView

ENOUGH_STEPS = 100
ENOUGH_QUERIES = 2000
_BUDGETS = {"n_queries": ENOUGH_QUERIES} | dict.fromkeys(("steps", "max_iterations", "repeats"), ENOUGH_STEPS)
# Parameters that may be 0: the attack is then another published one.
_OPTIONAL = ("decay", "momentum", "diversity_prob", "resize_rate", "regularization", "beta", "kappa", "confidence")
_MARGINS = ("confidence", "kappa")
_SHORT = " is short; give "
GREEDY = "follows one greedy path to the nearest boundary; report no robustness from it alone"  # DeepFool


def small_search(warning: str) -> str:
    """Return the word for an attack that searches well, but less than it could: "short" or "greedy"; else ""."""
    return "greedy" if warning == GREEDY else "short" if _SHORT in warning else ""


def check_params(attack: str, params: Mapping[str, object], names: Iterable[str]) -> None:
    """Refuse parameters that an attack does not take.

    Args:
        attack: its name.
        params: of the board.
        names: of the attack's parameters.

    Raises:
        UserError: parameters are unknown (nearest names given).
    """
    names = list(names)
    if faults := [str(unknown(f"parameter of {attack}", key, names)) for key in params if key not in names]:
        raise UserError(*faults)


def short_of_steps(defaults: Mapping[str, object], params: Mapping[str, object], key: str = "steps") -> tuple[str, ...]:
    """Return the warning of an iterative attack that takes few steps, by the board or by default; else ().

    Args:
        defaults: of the constructor.
        params: of the board.
        key: parameter that holds the number of steps.
    """
    steps = defaults.get(key)
    if key not in params and isinstance(steps, int) and steps < ENOUGH_STEPS:
        return (f"its default of {steps} steps{_SHORT}{key} = {ENOUGH_STEPS} or more",)
    return short_of(params, {key: ENOUGH_STEPS} if isinstance(steps, int) else {})


def short_of(params: JsonView, enough: Mapping[str, int]) -> tuple[str, ...]:
    """Return the warnings of budgets that a board sets too small.

    Args:
        params: of the board.
        enough: by parameter, the least value without a warning.
    """
    budgets = {key: params[key] for key in enough if isinstance(params.get(key), int | float)}
    return tuple(
        f"{key} = {value}{_SHORT}{enough[key]} or more" for key, value in budgets.items() if value < enough[key]
    )


def short_budgets(defaults: JsonView, params: Mapping[str, object], skip: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the warnings of budgets that a board sets below the default, or below the value that is always enough.

    Args:
        defaults: of the constructor.
        params: of the board.
        skip: parameters that have other warnings.
    """
    enough = {key: most for key, most in _BUDGETS.items() if key not in skip and isinstance(defaults.get(key), int)}
    return short_of(params, {key: min(defaults[key], most) for key, most in enough.items()})


def searches_nothing(defaults: JsonView, params: JsonView) -> tuple[str, ...]:
    """Return the warnings of parameters of a board that are 0 or negative where an attack needs more.

    Args:
        defaults: of the constructor; only parameters above 0 by default are looked at.
        params: of the board.
    """
    lines = []
    for key, value in params.items():
        default = defaults.get(key, 0)
        if key in _MARGINS and _is_number(value) and value < 0:
            lines.append(f"{key} = {value} stops it before the images are misclassified; publish nothing")
        if default is None and key.endswith("stepsize"):
            default = math.inf  # derived from eps
        if not (_is_number(default) and default > 0 and _is_number(value)):
            continue
        if value < 0 or (value == 0 and key not in _OPTIONAL):
            usual = "" if math.isinf(default) else f" (default {default})"
            lines.append(f"{key} = {value} lets it search nothing or backwards{usual}; publish nothing")
    return tuple(lines)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def step_notes(steps: Any, size: Any, eps: float, norm: str) -> tuple[str, ...]:
    """Return the warnings of steps that do not fit the ball.

    Args:
        steps: their number.
        size: their length, in the unit of eps.
        eps: radius of the ball.
        norm: of the ball.
    """
    if not (_is_number(steps) and _is_number(size)) or steps <= 0 or size <= 0:
        return ()  # `searches_nothing` tells
    if size * steps < eps:
        return (f"{steps} steps of {size:.4g} cannot cross the ball of {eps:.4g}",)
    if steps > 1 and norm == "Linf" and size >= 2 * eps:
        return (f"steps of {size:.4g} cross the whole ball of {eps:.4g}, so that only its corners are tried",)
    return ()
