"""Attacks on training images: BadNets and clean-label poisoning, and their trigger."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn

from bench.tracks.poisoning.records import CONTROL
from defenses.training.adversarial.attacks import pgd
from defenses.training.streams import stream
from defenses.utils.errors import UserError

KINDS = ("badnets", "clean-label")


@dataclass(frozen=True)
class Trigger:
    """A square trigger in the bottom right corner.

    Args:
        size: side, in pixels.
        value: of its pixels, in [0, 1]; 1 is white.

    Source: Gu et al. 2017 (arXiv 1708.06733).
    """

    size: int = 3
    value: float = 1.0

    def put(self, x: Tensor) -> Tensor:
        """Return copies of images [B, C, H, W] with the square."""
        out = x.clone()
        out[..., -self.size :, -self.size :] = self.value
        return out


@dataclass(frozen=True)
class Perturbation:
    """The Linf PGD attack of clean-label poisoning, which makes the trigger the easiest feature to learn.

    Args:
        against: name of the surrogate, a trained network of the attacker's.
        eps: radius, in pixels of [0, 1].
        step: step size.
        iterations: number of steps.
    """

    against: str = "undefended"
    eps: float = 0.2
    step: float = 0.05
    iterations: int = 20


@dataclass(frozen=True)
class Poison:
    """A poisoning attack at one ratio.

    Args:
        kind: one of KINDS, or CONTROL.
        ratio: in (0, 1]: of BadNets the share of all training images, of clean-label poisoning that of the target's
            class; 0 for the control.
        perturbation: of clean-label poisoning.
    """

    kind: str = CONTROL
    ratio: Fraction = Fraction(0)
    perturbation: Perturbation | None = None

    def count(self, y: Tensor, target: int) -> int:
        """Return the number of poisoned images, rounded to the nearest.

        Args:
            y: labels of the training images, int64 [N].
            target: class that the trigger shall produce.

        Raises:
            UserError: it is 0, or exceeds the number of images.
        """
        if self.kind == CONTROL:
            return 0
        of_target = int((y == target).sum())
        clean_label = self.kind == "clean-label"
        whole, most = (of_target, of_target) if clean_label else (len(y), len(y) - of_target)
        n = int(self.ratio * whole + Fraction(1, 2))
        outcome = f"{self.kind} with ratio {float(self.ratio):g} poisons {n} of {whole} images"
        if n < 1:
            raise UserError(f"{outcome}; choose a larger one")
        if n > most:
            raise UserError(f"{outcome}, and only {most} are not of class {target}; choose a smaller one")
        return n


@dataclass(frozen=True, eq=False)
class Poisoned:
    """Training data after an attack.

    Args:
        x: images float32 [N, C, H, W] in [0, 1].
        y: labels int64 [N].
        index: ascending positions of the poisoned images, int64.
    """

    x: Tensor
    y: Tensor
    index: Tensor


def poisoned(
    x: Tensor,
    y: Tensor,
    poison: Poison,
    *,
    target: int,
    trigger: Trigger,
    trained: Callable[[str], nn.Module],
    seed: int,
) -> Poisoned:
    """Return poisoned training data; with one seed, the images of a smaller ratio are among those of a larger one.

    BadNets puts the trigger on images of other classes and labels them `target`. Clean-label poisoning perturbs images
    of the class itself so that a surrogate misclassifies them, and puts the trigger on; every label stays right.

    Args:
        x: images float32 [N, C, H, W] in [0, 1].
        y: labels int64 [N].
        poison: the attack.
        target: class that the trigger shall produce.
        trigger: the trigger.
        trained: returns the network of a name, for clean-label poisoning.
        seed: of the choice of images and of PGD's start.

    Raises:
        UserError: as `Poison.count`.

    Source: Gu et al. 2017 (BadNets); Turner et al. 2019 (arXiv 1912.02771), clean labels by adversarial perturbation.
    """
    n = poison.count(y, target)
    if not n:
        return Poisoned(x, y, torch.zeros(0, dtype=torch.int64))
    eligible = y == target if poison.kind == "clean-label" else y != target
    order = torch.randperm(len(y), generator=stream(seed, f"poison {poison.kind}"))
    index = order[eligible[order]][:n].sort().values
    x, y, selected = x.clone(), y.clone(), x[index]
    if (p := poison.perturbation) is not None:
        generator = stream(seed, "poison perturbation")
        surrogate = trained(p.against)
        selected = pgd(surrogate, selected, y[index], generator, eps=p.eps, step=p.step, iterations=p.iterations)
    x[index] = trigger.put(selected)
    y[index] = target
    return Poisoned(x, y, index)
