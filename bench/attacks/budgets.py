"""Checks of attack parameters, and warnings of small budgets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from defenses.utils.errors import unknown

ENOUGH_STEPS = 100
ENOUGH_QUERIES = 2000
_BUDGETS = {"n_queries": ENOUGH_QUERIES} | dict.fromkeys(("steps", "max_iterations", "repeats"), ENOUGH_STEPS)
GREEDY = "follows one greedy path to the nearest boundary; report no robustness from it alone"  # DeepFool


def check_params(attack: str, params: Mapping[str, Any], names: Iterable[str]) -> None:
    """Refuse parameters that an attack does not take.

    Args:
        attack: its name.
        params: of the board.
        names: of the attack's parameters.

    Raises:
        UserError: a parameter is unknown (nearest names given).
    """
    names = list(names)
    for key in params:
        if key not in names:
            raise unknown(f"parameter of {attack}", key, names)


def short_of_steps(defaults: Mapping[str, Any], params: Mapping[str, Any], key: str = "steps") -> tuple[str, ...]:
    """Return the warning of an iterative attack that takes few steps, by the board or by default; else ().

    Args:
        defaults: of the constructor.
        params: of the board.
        key: parameter that holds the number of steps.
    """
    steps = defaults.get(key)
    if key not in params and isinstance(steps, int) and steps < ENOUGH_STEPS:
        return (f"its default of {steps} steps is short; give {key} = {ENOUGH_STEPS} or more",)
    return short_of(params, {key: ENOUGH_STEPS} if isinstance(steps, int) else {})


def short_of(params: Mapping[str, Any], enough: Mapping[str, int]) -> tuple[str, ...]:
    """Return the warnings of budgets that a board sets too small.

    Args:
        params: of the board.
        enough: by parameter, the least value without a warning.
    """
    budgets = {key: params[key] for key in enough if isinstance(params.get(key), int | float)}
    return tuple(
        f"{key} = {value} is short; give {enough[key]} or more" for key, value in budgets.items() if value < enough[key]
    )


def short_budgets(defaults: Mapping[str, Any], params: Mapping[str, Any], skip: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the warnings of budgets that a board sets below the default, or below the value that is always enough.

    Args:
        defaults: of the constructor.
        params: of the board.
        skip: parameters that have other warnings.
    """
    enough = {key: most for key, most in _BUDGETS.items() if key not in skip and isinstance(defaults.get(key), int)}
    return short_of(params, {key: min(defaults[key], most) for key, most in enough.items()})
