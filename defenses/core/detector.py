"""Detectors: scores of images beside a defense, and refusal of images above a threshold."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from defenses.core.defense import Classifier, Defense, Prediction
from defenses.core.noise import Noise
from defenses.utils.errors import UserError

FPR = 0.05  # default share of clean images that are refused
_GUARD = 0x47554152  # name of the noise stream


class Detector(nn.Module, ABC):
    """Score of images for separating clean ones from others; higher is more suspicious.

    Results of `fit` are stored in buffers of the detector itself, so that they can be cached
    (`defenses.detectors.calibration`).

    Attributes:
        stochastic: True if the score depends on the noise.
        differentiable: True if the gradient of the score is exact; False if approximated, as by the identity in place
            of rounding.
        learns: True if it has a `fit`.
    """

    stochastic: bool = False
    differentiable: bool = True
    learns: bool = False

    def fit(self, x: Tensor, y: Tensor, classifier: Classifier) -> None:
        """Learn from clean training images [N, C, H, W] in [0, 1] and labels [N]. Default: learn nothing."""

    @abstractmethod
    def scores(self, x: Tensor, noise: Noise, classifier: Classifier) -> Tensor:
        """Return the scores [B] of images [B, C, H, W] in [0, 1] under B streams."""

    def cost_modules(self) -> list[nn.Module]:
        """Return the networks, beside the classifier, whose passes are its cost. Default: the direct children."""
        return list(self.children())


class Guard(nn.Module):
    """A fitted detector with its classifier and a threshold.

    Args:
        detector: the detector.
        classifier: the plain classifier of the defense.
        threshold: images with scores above it are suspected.
        scale: standard deviation of the scores of clean images, for attacks that weigh scores against logits.
    """

    def __init__(self, detector: Detector, classifier: Classifier, *, threshold: float, scale: float = 1.0):
        super().__init__()
        self.detector, self.classifier, self.threshold, self.scale = detector, classifier, threshold, scale

    def scores(self, x: Tensor, noise: Noise) -> Tensor:
        """Return the scores [B] of images [B, C, H, W] in [0, 1] under B streams."""
        return self.detector.scores(x, noise.child(_GUARD), self.classifier)

    def excess(self, x: Tensor, noise: Noise) -> Tensor:
        """Return the scores minus the threshold, in units of the scale, [B]; above 0: suspected."""
        return (self.scores(x, noise) - self.threshold) / self.scale

    def cost_modules(self) -> list[nn.Module]:
        """Return the networks of the detector and of the classifier."""
        return [*self.detector.cost_modules(), *self.classifier.cost_modules()]


class Guarded(Defense):
    """Defense beside a detector; suspected images are refused.

    Its logits are those of the defense, so attacks that ignore the detector attack the defense.

    Args:
        defense: the defense.
        guard: the detector beside it.
    """

    def __init__(self, defense: Defense, guard: Guard):
        super().__init__()
        self.defense, self.guard = defense, guard
        self.gradients = defense.gradients
        self.num_classes, self.input_shape = defense.num_classes, defense.input_shape
        self.stochastic = defense.stochastic or guard.detector.stochastic
        if hasattr(defense, "runs"):  # attacks and reports read these of a purified classifier
            self.runs, self.combine = defense.runs, defense.combine
        self.train(False)

    def logits(self, x: Tensor, noise: Noise, *, gradient: str = "exact", runs: int | None = None) -> Tensor:
        """Return the logits of the defense."""
        return self.defense.logits(x, noise, gradient=gradient, runs=runs)

    def decide(self, x: Tensor, noise: Noise) -> Prediction:
        """Return the defense's logits, the images that the detector refuses, and its scores."""
        scores = self.guard.scores(x, noise)
        return Prediction(self.logits(x, noise), scores > self.guard.threshold, scores)

    def cost_modules(self) -> list[nn.Module]:
        """Return the networks of the defense and of the guard."""
        return list(dict.fromkeys([*self.defense.cost_modules(), *self.guard.cost_modules()]))


def unguarded(defense: Defense) -> Defense:
    """Return the defense inside `Guarded`; any other defense as it is."""
    while isinstance(defense, Guarded):
        defense = defense.defense
    return defense


def guard_of(defense: Defense) -> Guard | None:
    """Return the guard of a defense that refuses suspected images or purifies them alone; None: it has no guard."""
    if isinstance(defense, Guarded):
        return defense.guard
    guard = getattr(getattr(defense, "purifier", None), "guard", None)
    return guard if isinstance(guard, Guard) else None


def check_fpr(fpr: object, images: int) -> float:
    """Return a false-positive rate as a number.

    Args:
        fpr: share of clean images to refuse.
        images: number of clean images to calibrate on.

    Raises:
        UserError: `fpr` is no number in (0, 1), or there are too few images for it.
    """
    if isinstance(fpr, bool) or not isinstance(fpr, int | float) or not 0 < fpr < 1:
        raise UserError(f'fpr is {fpr!r}; it must be a number between 0 and 1, as 0.05 or "1/20"')
    if math.ceil((images + 1) * (1 - fpr)) > images:
        least = math.ceil(1 / fpr) - 1
        raise UserError(f"an fpr of {fpr:g} needs at least {least} clean validation images, and there are {images}")
    return float(fpr)


@torch.no_grad()
def clean_scores(detector: Detector, x: Tensor, classifier: Classifier, *, seed: int = 0) -> Tensor:
    """Return the scores of clean images, in ascending order.

    Args:
        detector: fitted.
        x: clean images [N, C, H, W] in [0, 1].
        classifier: see `Guard`.
        seed: of the noise.

    Returns:
        Scores [N].

    Raises:
        UserError: some scores are not finite.
    """
    noise = Noise.of(seed, len(x), x.device).child(_GUARD)
    parts = zip(x.split(500), noise.keys.split(500), strict=True)
    scores = torch.cat([detector.scores(a, Noise(k), classifier) for a, k in parts])
    if not bool(scores.isfinite().all()):
        name = type(detector).__name__
        raise UserError(f"{name} gives clean images scores that are not finite; check its weights and parameters")
    return scores.sort().values


def calibrated(detector: Detector, classifier: Classifier, scores: Tensor, *, fpr: float) -> Guard:
    """Return a guard with a conformal threshold for a false-positive rate.

    The threshold is the ceil((N + 1)(1 - fpr))-th smallest score: of further images, exchangeable with these N, at most
    `fpr` are above it on average (conformal prediction; Vovk et al. 2005).

    Args:
        detector: fitted.
        classifier: see `Guard`.
        scores: of clean images that were not used for training, ascending [N].
        fpr: share of clean images to suspect.

    Raises:
        UserError: see `check_fpr`.
    """
    rank = math.ceil((len(scores) + 1) * (1 - check_fpr(fpr, len(scores))))
    scale = float(scores.double().std().clamp_min(torch.finfo(torch.float32).tiny))
    return Guard(detector, classifier, threshold=float(scores[rank - 1]), scale=scale)
