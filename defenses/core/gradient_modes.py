"""Gradient modes: what a backward pass through a defense goes through. Names and meanings, without torch.

The names follow DiffBreak (Kassis et al. 2025). `defenses.core.backward` computes them. Three take a number, after a
colon: "surrogate:25", "smooth:1/100", "difference:0.03"; left out, the purifier chooses it.
"""

from __future__ import annotations

from fractions import Fraction
from inspect import signature
from typing import TYPE_CHECKING

from defenses.utils.errors import UserError, unknown
from defenses.utils.parameters import as_number

if TYPE_CHECKING:
    from collections.abc import Iterable

    from defenses.core.purifier import Purifier

MODES = {
    "exact": "through every step of the purifier: states, noise, step sizes, context",
    "bpda": "the purifier counts as the identity backward (Athalye et al. 2018)",
    "blind": "the bare classifier, forward and backward: the attacker knows of no purifier",
    "bpda-denoiser": "backward through one step of the purifier, taken as a denoiser from its start",
    "bpda-autoencoder": "backward through a network that stands for the purifier",
    "bpda-filters": "exact, but for filters without a gradient in front, which count as the identity backward",
    "surrogate": "a purifier of fewer steps, forward and backward (Lee & Kim 2023)",
    "forward-noise": "backward through start and finish of the purifier; its steps count as the identity",
    "joint-score": "half the signs of the bpda gradient, half those of the score at the image (Yoon et al. 2021)",
    "joint-full": "as joint-score, with what purification adds to the image in place of the score",
    "smooth": "the steps of a purifier whose piecewise linear activations are smoothed, from the true states",
    "difference": "central differences, at the scale of a step's noise, in place of the steps' Jacobians",
}
NUMBERS = {  # mode -> (what its number is, the purifier's method that takes it)
    "surrogate": ("steps", "surrogate"),
    "smooth": ("width of the activations", "smoothed"),
    "difference": ("root mean square of the displacement of a value, in the purifier's units", "differenced"),
}
JOINT = ("joint-score", "joint-full")


def parsed(mode: str) -> tuple[str, Fraction | None]:
    """(name of a mode, its number if it has one).

    Args:
        mode: as "exact" or "smooth:1/100".

    Raises:
        UserError: there is no such mode, it takes no number, or not this one.
    """
    name, colon, text = str(mode).partition(":")
    if name not in MODES:
        raise unknown("gradient mode", name, MODES)
    if not colon:
        return name, None
    if name not in NUMBERS:
        raise UserError(f'the gradient mode "{name}" takes no number, as {", ".join(NUMBERS)} do; leave out ":{text}"')
    number = as_number(text)
    if number is None or number <= 0 or (name == "surrogate" and number.denominator > 1):
        kind = "a whole number, at least 1" if name == "surrogate" else "a positive number"
        raise UserError(f'the number of the gradient mode "{mode}" is its {NUMBERS[name][0]}; it must be {kind}')
    return name, number


def spelled(mode: str) -> str:
    """The one spelling of a mode: "smooth:0.10" is "smooth:1/10"."""
    name, number = parsed(mode)
    return name if number is None else f"{name}:{number}"


def check_mode(mode: str, has: Iterable[str]) -> None:
    """Refuse a mode that a defense does not have.

    Args:
        mode: the mode.
        has: the modes of the defense.

    Raises:
        UserError: there is no such mode, or the defense lacks it; names those that there are.
    """
    if mode in has or (name := parsed(mode)[0]) in has:
        return
    how = "; Purified(..., autoencoder=network) gives it" if name == "bpda-autoencoder" else ""
    raise UserError(f'this defense has no gradient mode "{name}"; it has: {", ".join(has)}{how}')


def variant(purifier: Purifier, mode: str) -> Purifier:
    """The purifier in place of another under a mode of `NUMBERS`.

    Raises:
        UserError: the number is not one for this purifier.
    """
    name, number = parsed(mode)
    hook = getattr(purifier, NUMBERS[name][1])
    if number is not None and not signature(hook).parameters:
        kind = type(purifier).__name__
        raise UserError(f'{kind}.{hook.__name__}() takes no number; let it take one, or leave out ":{number}"')
    given = () if number is None else (int(number) if name == "surrogate" else float(number),)
    found: Purifier | None = hook(*given)
    assert found is not None, "a mode that the purifier lacks has been let through"
    return found


def modes_of(purifier: Purifier, *, autoencoder: bool = False) -> tuple[str, ...]:
    """The modes of a purifier before a classifier, in the order of `MODES`.

    Args:
        purifier: its hooks decide.
        autoencoder: whether the defense has been given a network for "bpda-autoencoder".
    """
    score = purifier.score_direction() is not None
    solid = not purifier.differentiable
    missing = {
        "exact": solid,
        "bpda-denoiser": solid or purifier.one_step() is None,
        "bpda-autoencoder": not autoencoder and purifier.backward_network() is None,
        "bpda-filters": purifier.bridged() is None,
        "surrogate": solid or purifier.surrogate() is None,
        "forward-noise": solid or not purifier.holds_image,
        "joint-score": not score,
        "joint-full": not score,
        "smooth": solid or purifier.smoothed() is None,
        "difference": solid or purifier.differenced() is None,
    }
    return tuple(mode for mode in MODES if not missing.get(mode, False))
