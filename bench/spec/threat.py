"""Threat models (norm, radius, targets, knowledge), and sizes of perturbations."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, cast

from defenses.utils.errors import UserError, unknown
from defenses.utils.parameters import as_fraction, as_number, plain

if TYPE_CHECKING:
    from torch import Tensor

Norm = Literal["Linf", "L2", "L1", "L0"]
NORMS: tuple[Norm, ...] = ("Linf", "L2", "L1", "L0")
TARGETS = ("none", "next", "random")
_LEAST_EPS, _MOST_EPS = Fraction(1, 10**9), Fraction(10**9)  # below a step of float32, above any image
_MOST_EPS_LINF = Fraction(1)  # every image reaches every other


def exact(value: str | int | float | Fraction) -> Fraction:
    """Return a number as an exact fraction: "8/255", "0.15", 3, .15 (read as it prints, but 8 / 255 is 8/255).

    Raises:
        UserError: the text is not a number.
    """
    try:
        number = as_fraction(value) if isinstance(value, float) else as_number(str(value).replace(" ", ""))
    except (ValueError, OverflowError):  # nan, infinity
        number = None
    if number is None:
        raise UserError(f'"{str(value)[:40]}" is not a number; write a fraction as 8/255 or a decimal as 0.03')
    return number


@dataclass(frozen=True)
class ThreatModel:
    """A threat model: an adversary's budget and aim.

    Args:
        norm: "Linf", "L2", "L1" (on pixels in [0, 1]) or "L0" (number of pixels, all channels of one together).
        eps: radius, an exact number as "8/255"; at most 1 under Linf, whole under L0.
        targets: "none" (any wrong class), "next" (class y + 1) or "random" (a fixed other class per image).
        knowledge: the attacker's knowledge in words, for tables; gradients are a matter of the attack view.

    Raises:
        UserError: unknown norm or targets, or eps is not a number, not positive or larger than any image.
    """

    norm: Norm
    eps: Fraction
    targets: str = "none"
    knowledge: str = "white-box"

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", plain(self.norm))
        by_lower = {n.lower(): n for n in NORMS}
        if str(self.norm).lower() not in by_lower:
            raise unknown("norm", str(self.norm), NORMS)
        object.__setattr__(self, "norm", by_lower[str(self.norm).lower()])
        object.__setattr__(self, "eps", exact(self.eps))
        if self.eps <= 0:
            raise UserError(f"eps is {self.eps}; it must be positive")
        if not _LEAST_EPS <= self.eps <= (_MOST_EPS_LINF if self.norm == "Linf" else _MOST_EPS):
            large = "larger than any image" + (": under Linf, 1 reaches them all" if self.norm == "Linf" else "")
            problem = "smaller than float32 images resolve" if self.eps < _LEAST_EPS else large
            raise UserError(f"eps is {problem}; write the radius on pixels in [0, 1], as 8/255")
        if self.norm == "L0" and self.eps.denominator != 1:
            raise UserError(f"eps is {self.eps}; under L0 it is a number of pixels, so it must be whole")
        if self.targets not in TARGETS:
            raise unknown("targets", self.targets, TARGETS)

    @classmethod
    def of(cls, norm: str, eps: str | float | Fraction) -> ThreatModel:
        """Return the untargeted threat model of a norm and a radius as users write them, as "linf" and "8/255"."""
        return cls(cast("Norm", norm), cast("Fraction", eps))

    @property
    def targeted(self) -> bool:
        """Return True if the adversary aims at a class of its choice."""
        return self.targets != "none"

    @property
    def tolerance(self) -> float:
        """Return the distance by which float32 arithmetic may leave the ball: max(1e-6, 1e-5 eps)."""
        return max(1e-6, 1e-5 * float(self.eps))

    def __str__(self) -> str:
        aim = f", target {self.targets}" if self.targeted else ""
        return f"{self.norm} {self.eps}{aim}"


def distances(x: Tensor, x_adv: Tensor) -> dict[str, Tensor]:
    """Return the size of perturbations in every norm, computed in float64.

    Args:
        x: images [B, C, H, W].
        x_adv: perturbed images [B, C, H, W].

    Returns:
        {"Linf", "L2", "L1", "L0"}: float64 [B] each; L0 counts pixels, all channels of one together.
    """
    import torch

    delta = x_adv.detach().to(torch.float64, copy=True)
    for image, clean in zip(delta, x, strict=True):  # one at a time, as a copy of all would take more memory
        image -= clean
    flat = delta.abs_().flatten(1)
    sizes = {"Linf": flat.amax(1), "L1": flat.sum(1), "L0": (delta.amax(1) > 0).flatten(1).sum(1).double()}
    return {**sizes, "L2": flat.square_().sum(1).sqrt()}


def in_box(x_adv: Tensor) -> Tensor:
    """Return bool [B]: all pixels of x_adv [B, C, H, W] lie in [0, 1], to within 1e-6 (NaN does not)."""
    flat = x_adv.flatten(1)
    return ((flat >= -1e-6) & (flat <= 1 + 1e-6)).all(1)


def target_labels(threat: ThreatModel, y: Tensor, indices: Tensor, num_classes: int, seed: int) -> Tensor | None:
    """Return the target class of each image.

    Args:
        threat: its `targets` is the rule.
        y: labels, int64 [B].
        indices: dataset indices, int64 [B]: a random target depends on them and not on the batch.
        num_classes: K.
        seed: of random targets.

    Returns:
        int64 [B], never equal to y; None when the threat is untargeted.
    """
    if not threat.targeted:
        return None
    if threat.targets == "next":
        return (y + 1) % num_classes
    from defenses.core.noise import Draw, Noise

    u = Noise.of(seed, indices.cpu()).draw(Draw((1,), "uniform"))[:, 0].to(y.device)
    return (y + 1 + (u * (num_classes - 1)).long()) % num_classes
