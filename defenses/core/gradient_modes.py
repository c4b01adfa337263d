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

    from torch import Tensor

    from defenses.core.defense import Defense
    from defenses.core.noise import Noise
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
_FLOAT32 = 1e-5  # gradients that differ by less, relative to their length, are one and the same
_REACH = 0.05  # how far a pixel of [0, 1] is moved to see what the purifier does at a finite distance


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


def carries_information(defense: Defense, x: Tensor, noise: Noise) -> bool:
    """Whether exact gradients say anything that bpda does not.

    They do not where the steps have the identity as derivative almost everywhere without being the identity: so it
    is with Langevin steps on an energy of linear layers and (Leaky)ReLU, whose gradient is piecewise constant.
    Behind a gate the purifier itself is asked, as if all images were suspected.
    Measured, and not told by the type: on the given images the exact gradient of all logits equals the bpda gradient
    to float precision, and yet, at a finite distance and with the same noise, the purified images do not move with
    the images.

    Args:
        defense: the defense; one without both modes carries information.
        x: some images [B, C, H, W] in [0, 1]; a handful is enough.
        noise: B streams.
    """
    from defenses.core.detector import unguarded
    from defenses.detectors.gated import Gated
    from defenses.utils.modules import twin

    defense = unguarded(defense)
    purifier = getattr(defense, "purifier", None)
    if isinstance(purifier, Gated):
        purifier = purifier.purifier
        defense = twin(defense, purifier=purifier)
    if purifier is None or not {"exact", "bpda"} <= set(defense.gradients):
        return True
    exact, bpda = (_gradient(defense, x, noise, mode).flatten(1) for mode in ("exact", "bpda"))
    if not bpda.any() or (exact - bpda).norm() > _FLOAT32 * bpda.norm():
        return True
    return not _bends(purifier, x, noise)


def information_note(defense: Defense, x: Tensor, noise: Noise, *, label: str) -> str:
    """One sentence for the notes of a row of exact gradients where they carry no information; else "".

    Args:
        defense: the defense.
        x: some images [B, C, H, W] in [0, 1].
        noise: B streams.
        label: of the defense.
    """
    if carries_information(defense, x, noise):
        return ""
    other = [mode for mode in ("smooth", "difference") if mode in defense.gradients]
    advice = f"use {' or '.join(other)}" if other else "use an attack without gradients"
    return f"exact gradients through {label} equal bpda: its steps are piecewise linear with slope one; {advice}"


def _gradient(defense: Defense, x: Tensor, noise: Noise, mode: str) -> Tensor:
    import torch

    with torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        logits = defense.logits(leaf, noise, gradient=mode, runs=1)
        # Unequal weights: the gradient of a sum of log-probabilities may vanish.
        weights = torch.arange(1, logits.shape[-1] + 1, device=x.device, dtype=logits.dtype).cos()
        return torch.autograd.grad((logits * weights).sum(), leaf)[0]


def _bends(purifier: Purifier, x: Tensor, noise: Noise) -> bool:
    """Whether purified images move otherwise than the images do at a finite distance."""
    import torch

    from defenses.core.noise import Draw
    from defenses.core.purify import purify

    with torch.no_grad():
        move = _REACH * noise.child(2).draw(Draw(tuple(x.shape[1:]), "rademacher")).to(x.dtype)
        moved = purify(purifier, x + move, noise) - purify(purifier, x - move, noise)
        return bool((moved - 2 * move).norm() > 1e-3 * (2 * move).norm())
