"""Facts about a library's classes, read from its source files: importing it would cost seconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from defenses.utils.errors import unknown

ENOUGH_STEPS = 100
ENOUGH_QUERIES = 2000  # of 200 digits, PGD-AT, Square leaves 72.0% standing in Linf at 500, 68.0% at 1000, 64.5% at
# 2000 and at 5000 [measured]
_BUDGETS = {"n_queries": ENOUGH_QUERIES} | dict.fromkeys(("steps", "max_iterations", "repeats"), ENOUGH_STEPS)
GREEDY = "follows one greedy path to the nearest boundary; report no robustness from it alone"  # DeepFool


def check_params(attack: str, params: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse parameters that an attack does not take.

    Raises:
        UserError: with the nearest names.
    """
    for key in params:
        if key not in set(known):
            raise unknown(f"parameter of {attack}", key, known)


def short_of_steps(defaults: Mapping[str, Any], params: Mapping[str, Any], key: str = "steps") -> tuple[str, ...]:
    """The warning of an iterative attack that takes few steps, by the board or by default.

    Of 200 digits, PGD-AT: PGD with the default of Foolbox leaves 67.5% standing in Linf, 61.0% with 100 steps; 30.5%
    in L2, 7.5% with 200; that of torchattacks 62.5%, 61.0% with 40; 13.0% in L2, 4.5% with 100 [measured].
    """
    steps = defaults.get(key)
    if key not in params and isinstance(steps, int) and steps < ENOUGH_STEPS:
        return (f"its default of {steps} steps is short; give {key} = {ENOUGH_STEPS} or more",)
    return short_of(params, {key: ENOUGH_STEPS} if isinstance(steps, int) else {})


def short_of(params: Mapping[str, Any], enough: Mapping[str, int]) -> tuple[str, ...]:
    """The warnings of budgets that a board gives.

    Args:
        params: what the board gives.
        enough: by parameter, the value from which on it is no longer short.
    """
    given = {key: params[key] for key in enough if isinstance(params.get(key), int | float)}
    return tuple(
        f"{key} = {value} is short; give {enough[key]} or more" for key, value in given.items() if value < enough[key]
    )


def short_budgets(defaults: Mapping[str, Any], params: Mapping[str, Any], told: Iterable[str] = ()) -> tuple[str, ...]:
    """The warnings of given budgets whose defaults are not short: less than a default is, up to what is enough for all.

    Args:
        defaults: of the constructor.
        params: what the board gives.
        told: parameters of which other warnings tell.
    """
    known = {key: most for key, most in _BUDGETS.items() if key not in told and isinstance(defaults.get(key), int)}
    return short_of(params, {key: min(defaults[key], most) for key, most in known.items()})
