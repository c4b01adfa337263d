"""Detectors: a score of suspicion beside a defense, whose images above a threshold are refused."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from defenses.base import Classifier, Defense, Prediction
from defenses.errors import UserError
from defenses.noise import Noise

_GUARD = 0x47554152  # name of the noise stream


class Detector(nn.Module, ABC):
    """Tells clean images from others by a score; higher is more suspicious.

    Attributes:
        stochastic: whether the score depends on the noise.
        differentiable: whether a gradient goes through it.
    """

    stochastic: bool = False
    differentiable: bool = True

    def fit(self, x: Tensor, y: Tensor, classifier: Classifier) -> None:
        """Learn from clean training images [N, C, H, W] and labels [N]; default: nothing is learnt."""

    @abstractmethod
    def scores(self, x: Tensor, noise: Noise, classifier: Classifier) -> Tensor:
        """Suspicion [B] of images [B, C, H, W] in [0, 1] under B streams."""

    def cost_modules(self) -> list[nn.Module]:
        """The networks, beside the classifier, whose passes are its cost. Default: the direct children."""
        return list(self.children())


class Guarded(Defense):
    """A defense that refuses what a detector suspects.

    Its logits, and so what attacks without thought for the detector see, are those of the defense.

    Args:
        defense: the defense.
        detector: the detector.
        classifier: the plain classifier that the detector may ask.
        threshold: scores above it are refused.
    """

    def __init__(self, defense: Defense, detector: Detector, classifier: Classifier, *, threshold: float):
        super().__init__()
        self.defense, self.detector, self.classifier, self.threshold = defense, detector, classifier, threshold
        self.gradients = defense.gradients
        self.num_classes, self.input_shape = defense.num_classes, defense.input_shape
        self.stochastic = defense.stochastic or detector.stochastic
        self.train(False)

    def logits(self, x: Tensor, noise: Noise, *, gradient: str = "exact", runs: int | None = None) -> Tensor:
        """Those of the defense."""
        return self.defense.logits(x, noise, gradient=gradient, runs=runs)

    def scores(self, x: Tensor, noise: Noise) -> Tensor:
        """Suspicion [B]."""
        return self.detector.scores(x, noise.child(_GUARD), self.classifier)

    def decide(self, x: Tensor, noise: Noise) -> Prediction:
        """The defense's logits, and which images the detector refuses."""
        return Prediction(self.logits(x, noise), self.scores(x, noise) > self.threshold)

    def cost_modules(self) -> list[nn.Module]:
        """Those of the defense and the detector, and the classifier."""
        own = [*self.defense.cost_modules(), *self.detector.cost_modules(), *self.classifier.cost_modules()]
        return list(dict.fromkeys(own))


@torch.no_grad()
def threshold_at(detector: Detector, x: Tensor, classifier: Classifier, *, fpr: float, seed: int = 0) -> float:
    """The threshold that refuses at most a share of clean images.

    Args:
        detector: fitted.
        x: clean validation images [N, C, H, W], which nothing was trained on.
        classifier: see `Guarded`.
        fpr: that share, in (0, 1).
        seed: of the detector's noise.

    Returns:
        The ceil((N + 1)(1 - fpr))-th smallest score, so that of exchangeable clean images at most `fpr` are refused.

    Raises:
        UserError: `fpr` outside (0, 1), or too few images for it.
    """
    if not 0 < fpr < 1:
        raise UserError(f"fpr is {fpr}; it must lie between 0 and 1")
    rank = math.ceil((len(x) + 1) * (1 - fpr))
    if rank > len(x):
        raise UserError(f"an fpr of {fpr} needs at least {math.ceil(1 / fpr) - 1} clean images, and there are {len(x)}")
    noise = Noise.of(seed, len(x), x.device).child(_GUARD)
    parts = zip(x.split(500), noise.keys.split(500), strict=True)
    scores = torch.cat([detector.scores(a, Noise(k), classifier) for a, k in parts])
    return float(scores.sort().values[rank - 1])
