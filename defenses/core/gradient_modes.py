"""Gradient modes: names and meanings of the backward passes through a defense. Imports without torch.

The names follow DiffBreak (Kassis et al. 2025). `defenses.core.backward` computes them. Three take a number after a
colon: "surrogate:25", "smooth:1/100", "difference:0.03"; without one the purifier chooses it.
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
    "blind": "the bare classifier, forward and backward: the attacker does not know the purifier",
    "bpda-denoiser": "backward through one step of the purifier, taken as a denoiser from its start",
    "bpda-autoencoder": "backward through a network in place of the purifier",
    "bpda-filters": "exact, except for filters without a gradient in front, which count as the identity backward",
    "surrogate": "a purifier of fewer steps, forward and backward (Lee & Kim 2023)",
    "forward-noise": "backward through start and finish of the purifier; its steps count as the identity",
    "joint-score": "half the signs of the bpda gradient, half those of the score at the image (Yoon et al. 2021)",
    "joint-full": "as joint-score, with purified minus original image in place of the score",
    "smooth": "backward through steps with smoothed piecewise linear activations, from the true states",
    "difference": "central differences, at the scale of a step's noise, in place of the steps' Jacobians",
}
NUMBERS = {  # mode -> (meaning of its number, the purifier's method)
    "surrogate": ("steps", "surrogate"),
    "smooth": ("width of the activations", "smoothed"),
    "difference": ("root mean square of the displacement of a value, in the purifier's units", "differenced"),
}
JOINT = ("joint-score", "joint-full")


def parsed(mode: str) -> tuple[str, Fraction | None]:
    """Return (name of a mode, its number or None).

    Args:
        mode: as "exact" or "smooth:1/100".

    Raises:
        UserError: unknown mode, or a number that it does not take.
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
    """Return the canonical spelling of a mode: "smooth:1/10" for "smooth:0.10".

    Raises:
        UserError: see `parsed`.
    """
    name, number = parsed(mode)
    return name if number is None else f"{name}:{number}"


def check_mode(mode: str, has: Iterable[str]) -> None:
    """Refuse a mode that a defense does not have.

    Args:
        mode: the mode.
        has: the modes of the defense.

    Raises:
        UserError: unknown mode, or one that the defense lacks; the message names those that it has.
    """
    if mode in has or (name := parsed(mode)[0]) in has:
        return
    remedy = "; Purified(..., autoencoder=network) gives it" if name == "bpda-autoencoder" else ""
    raise UserError(f'this defense has no gradient mode "{name}"; it has: {", ".join(has)}{remedy}')


def variant(purifier: Purifier, mode: str) -> Purifier:
    """Return the purifier that takes another's place under a mode.

    Args:
        purifier: the purifier.
        mode: one of `NUMBERS`, as "smooth" or "smooth:1/100".

    Raises:
        UserError: a number that this purifier does not take.
    """
    name, number = parsed(mode)
    hook = getattr(purifier, NUMBERS[name][1])
    if number is not None and not signature(hook).parameters:
        kind = type(purifier).__name__
        raise UserError(f'{kind}.{hook.__name__}() takes no number; let it take one, or leave out ":{number}"')
    arguments = () if number is None else (int(number) if name == "surrogate" else float(number),)
    replacement: Purifier | None = hook(*arguments)
    assert replacement is not None, "a mode that the purifier lacks has been let through"
    return replacement


def modes_of(purifier: Purifier, *, autoencoder: bool = False) -> tuple[str, ...]:
    """Return the modes of a purifier before a classifier, in the order of `MODES`.

    Args:
        purifier: its hooks decide.
        autoencoder: True if the defense has a network for "bpda-autoencoder".
    """
    no_score = purifier.score_direction() is None
    no_gradient = not purifier.differentiable
    missing = {
        "exact": no_gradient,
        "bpda-denoiser": no_gradient or purifier.one_step() is None,
        "bpda-autoencoder": not autoencoder and purifier.backward_network() is None,
        "bpda-filters": purifier.bridged() is None,
        "surrogate": no_gradient or purifier.surrogate() is None,
        "forward-noise": no_gradient or not purifier.holds_image,
        "joint-score": no_score,
        "joint-full": no_score,
        "smooth": no_gradient or purifier.smoothed() is None,
        "difference": no_gradient or purifier.differenced() is None,
    }
    return tuple(mode for mode in MODES if not missing.get(mode, False))
