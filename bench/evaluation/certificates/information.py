"""Compare exact gradients with BPDA's: steps whose derivative is the identity give no information."""

from __future__ import annotations

import torch
from torch import Tensor

from defenses.core.defense import Defense
from defenses.core.detector import unguarded
from defenses.core.noise import Draw, Noise
from defenses.core.purifier import Purifier
from defenses.core.purify import purify
from defenses.detectors.gated import Gated
from defenses.utils.modules import shared_copy

_FLOAT32 = 1e-5  # relative difference below which gradients are equal
_REACH = 0.05  # finite distance that pixels are moved by, to see if purified images follow


def carries_information(defense: Defense, x: Tensor, noise: Noise) -> bool:
    """Return True if exact gradients carry information that bpda does not.

    They carry none where the derivative of the steps is the identity almost everywhere and the steps are not: so it
    is with Langevin steps on an energy of linear layers and (Leaky)ReLU, whose gradient is piecewise constant.
    This is measured: on the given images the exact gradient of all logits equals the bpda gradient to float precision,
    and yet, at a finite distance and under the same noise, the purified images do not move with the images. Of a gated
    purifier the purifier itself is measured, as if all images were suspected.

    Args:
        defense: the defense; without both modes it counts as carrying information.
        x: some images [B, C, H, W] in [0, 1]; a handful is enough.
        noise: B streams.
    """
    defense = unguarded(defense)
    purifier = getattr(defense, "purifier", None)
    if isinstance(purifier, Gated):
        purifier = purifier.purifier
        defense = shared_copy(defense, purifier=purifier)
    if purifier is None or not {"exact", "bpda"} <= set(defense.gradients):
        return True
    exact, bpda = (_gradient(defense, x, noise, mode).flatten(1) for mode in ("exact", "bpda"))
    if not bpda.any() or (exact - bpda).norm() > _FLOAT32 * bpda.norm():
        return True
    return not _bends(purifier, x, noise)


def information_note(defense: Defense, x: Tensor, noise: Noise, *, label: str) -> str:
    """Return a note for the rows of exact gradients that carry no information; else "".

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
    """Return the gradient at x [B, C, H, W] of a weighted sum of all logits."""
    with torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        logits = defense.logits(leaf, noise, gradient=mode, runs=1)
        # Unequal weights: the gradient of a sum of log-probabilities may vanish.
        weights = torch.arange(1, logits.shape[-1] + 1, device=x.device, dtype=logits.dtype).cos()
        return torch.autograd.grad((logits * weights).sum(), leaf)[0]


def _bends(purifier: Purifier, x: Tensor, noise: Noise) -> bool:
    """Return True if purified images move otherwise than the images over a finite distance."""
    with torch.no_grad():
        move = _REACH * noise.child(2).draw(Draw(tuple(x.shape[1:]), "rademacher")).to(x.dtype)
        moved = purify(purifier, x + move, noise) - purify(purifier, x - move, noise)
        return bool((moved - 2 * move).norm() > 1e-3 * (2 * move).norm())
