"""Detectors: a score of suspicion beside a defense, whose images above a threshold are refused."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from defenses.core.defense import Classifier, Defense, Prediction
from defenses.core.noise import Noise
from defenses.utils.errors import UserError

FPR = 0.05  # share of clean images that is refused, where nothing else is said
_GUARD = 0x47554152  # name of the noise stream


class Detector(nn.Module, ABC):
    """Tells clean images from others by a score; higher is more suspicious.

    What `fit` learns stands in buffers of the detector itself, so that it can be kept
    (`defenses.detectors.calibration`).

    Attributes:
        stochastic: whether the score depends on the noise.
        differentiable: whether the gradient of the score is its own; else that of a stand-in, as the identity in place
            of rounding.
        learns: whether it has a `fit`.
    """

    stochastic: bool = False
    differentiable: bool = True
    learns: bool = False

    def fit(self, x: Tensor, y: Tensor, classifier: Classifier) -> None:
        """Learn from clean training images [N, C, H, W] and labels [N]; default: nothing is learnt."""

    @abstractmethod
    def scores(self, x: Tensor, noise: Noise, classifier: Classifier) -> Tensor:
        """Suspicion [B] of images [B, C, H, W] in [0, 1] under B streams."""

    def cost_modules(self) -> list[nn.Module]:
        """The networks, beside the classifier, whose passes are its cost. Default: the direct children."""
        return list(self.children())


class Guard(nn.Module):
    """A detector at work: fitted, beside the classifier that it may ask, with a threshold.

    Args:
        detector: the detector.
        classifier: the plain classifier of the defense.
        threshold: images with scores above it are suspected.
        scale: of the scores of clean images, for attacks that weigh scores against logits.
    """

    def __init__(self, detector: Detector, classifier: Classifier, *, threshold: float, scale: float = 1.0):
        super().__init__()
        self.detector, self.classifier, self.threshold, self.scale = detector, classifier, threshold, scale

    def scores(self, x: Tensor, noise: Noise) -> Tensor:
        """Suspicion [B]."""
        return self.detector.scores(x, noise.child(_GUARD), self.classifier)

    def excess(self, x: Tensor, noise: Noise) -> Tensor:
        """By how many scales the scores are above the threshold, [B]; at most 0: not suspected."""
        return (self.scores(x, noise) - self.threshold) / self.scale

    def cost_modules(self) -> list[nn.Module]:
        """The networks of the detector, and the classifier."""
        return [*self.detector.cost_modules(), *self.classifier.cost_modules()]


class Guarded(Defense):
    """A defense that refuses what a detector suspects.

    Its logits, and so what attacks without thought for the detector see, are those of the defense.

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
        if hasattr(defense, "runs"):  # what attacks and reports ask of a purified classifier
            self.runs, self.combine = defense.runs, defense.combine
        self.train(False)

    def logits(self, x: Tensor, noise: Noise, *, gradient: str = "exact", runs: int | None = None) -> Tensor:
        """Those of the defense."""
        return self.defense.logits(x, noise, gradient=gradient, runs=runs)

    def decide(self, x: Tensor, noise: Noise) -> Prediction:
        """The defense's logits, which images the detector refuses, and its scores."""
        scores = self.guard.scores(x, noise)
        return Prediction(self.logits(x, noise), scores > self.guard.threshold, scores)

    def cost_modules(self) -> list[nn.Module]:
        """Those of the defense and of the guard."""
        return list(dict.fromkeys([*self.defense.cost_modules(), *self.guard.cost_modules()]))


def unguarded(defense: Defense) -> Defense:
    """The defense whose logits a guarded one has; any other is itself."""
    while isinstance(defense, Guarded):
        defense = defense.defense
    return defense


def guard_of(defense: Defense) -> Guard | None:
    """The guard of a defense that refuses what a detector suspects, or purifies it alone; None: it has none."""
    if isinstance(defense, Guarded):
        return defense.guard
    found = getattr(getattr(defense, "purifier", None), "guard", None)
    return found if isinstance(found, Guard) else None


def check_fpr(fpr: object, images: int) -> float:
    """A share of clean images to refuse, as a number.

    Args:
        fpr: the share.
        images: how many clean images there are to calibrate on.

    Raises:
        UserError: it is no number in (0, 1), or there are too few images for it.
    """
    if isinstance(fpr, bool) or not isinstance(fpr, int | float) or not 0 < fpr < 1:
        raise UserError(f'fpr is {fpr!r}; it must be a number between 0 and 1, as 0.05 or "1/20"')
    if math.ceil((images + 1) * (1 - fpr)) > images:
        least = math.ceil(1 / fpr) - 1
        raise UserError(f"an fpr of {fpr:g} needs at least {least} clean validation images, and there are {images}")
    return float(fpr)


@torch.no_grad()
def clean_scores(detector: Detector, x: Tensor, classifier: Classifier, *, seed: int = 0) -> Tensor:
    """The scores [N] of clean images [N, C, H, W], in ascending order.

    Raises:
        UserError: some are not finite.
    """
    noise = Noise.of(seed, len(x), x.device).child(_GUARD)
    parts = zip(x.split(500), noise.keys.split(500), strict=True)
    scores = torch.cat([detector.scores(a, Noise(k), classifier) for a, k in parts])
    if not bool(scores.isfinite().all()):
        name = type(detector).__name__
        raise UserError(f"{name} gives clean images scores that are not finite; check its weights and parameters")
    return scores.sort().values


def calibrated(detector: Detector, classifier: Classifier, scores: Tensor, *, fpr: float) -> Guard:
    """A guard that suspects at most a share of clean images.

    The threshold is the ceil((N + 1)(1 - fpr))-th smallest score: of further images, exchangeable with these N, at most
    `fpr` are above it on average (conformal prediction; Vovk et al. 2005).

    Args:
        detector: fitted.
        classifier: see `Guard`.
        scores: of clean images that nothing was trained on, ascending [N].
        fpr: that share.

    Raises:
        UserError: see `check_fpr`.
    """
    rank = math.ceil((len(scores) + 1) * (1 - check_fpr(fpr, len(scores))))
    scale = float(scores.double().std().clamp_min(torch.finfo(torch.float32).tiny))
    return Guard(detector, classifier, threshold=float(scores[rank - 1]), scale=scale)
