"""A detector, a network and images small enough to compute scores by hand."""

from __future__ import annotations

from models import SHAPE, Linear, images, seeded
from torch import Tensor

from defenses.core.defense import Classifier
from defenses.core.detector import Detector
from defenses.core.noise import Noise

X = images(6)
NOISE = Noise.of(0, 6)


class Brightness(Detector):
    """The mean of the pixels."""

    def scores(self, x: Tensor, noise: Noise, classifier: Classifier) -> Tensor:
        return x.flatten(1).mean(1)


def linear(classes: int = 3) -> Classifier:
    net = Linear(seeded(classes, 64, seed=3) / 8, seeded(classes, seed=4))
    return Classifier(net, num_classes=classes, input_shape=SHAPE)
