"""Defenses that are robust only against weak attacks: each masks the gradients of the undefended network.

Name them in a board as "defenses.zoo.obfuscated:Quantised", with params = { dataset = "digits" }.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from defenses.core.defense import Classifier, Defense
from defenses.core.noise import Draw, Noise
from defenses.utils.errors import check_whole
from defenses.zoo.registry import load_model


class _Masked(Defense):
    """The undefended network of a data set, to be masked.

    Args:
        dataset: of the network.
    """

    def __init__(self, dataset: str = "digits"):
        super().__init__()
        classifier = load_model("undefended", dataset)
        assert isinstance(classifier, Classifier)
        self.bare = classifier
        self.num_classes, self.input_shape = classifier.num_classes, classifier.input_shape
        self.train(False)


class Quantised(_Masked):
    """Masking by quantisation: pixels are rounded to a few levels, without a gradient (Buckman et al. 2018).

    Args:
        dataset: of the network.
        levels: of a pixel, at least 2.
    """

    def __init__(self, dataset: str = "digits", levels: int = 5):
        check_whole(2, levels=levels)
        super().__init__(dataset)
        self.levels = levels

    def logits(self, x: Tensor, noise: Noise, *, gradient: str = "exact", runs: int | None = None) -> Tensor:  # noqa: ARG002
        """See `Defense.logits`."""
        steps = self.levels - 1
        return self.bare.logits(torch.round(x * steps) / steps, noise)


class Dithered(_Masked):
    """Masking by randomness: a ripple of random phase and small height, whose slope exceeds every gradient.

    Each pixel becomes x + height * sin(frequency * x + phase): noise of at most `height`, whose derivative is larger
    than 1 by height * frequency, with a random sign.

    Args:
        dataset: of the network.
        height: of the ripple, in pixel values.
        frequency: of the ripple, in radians per pixel value.
    """

    stochastic = True

    def __init__(self, dataset: str = "digits", height: float = 0.05, frequency: float = 1e4):
        super().__init__(dataset)
        self.height, self.frequency = height, frequency

    def logits(self, x: Tensor, noise: Noise, *, gradient: str = "exact", runs: int | None = None) -> Tensor:  # noqa: ARG002
        """See `Defense.logits`."""
        phase = 2 * math.pi * noise.draw(Draw(tuple(x.shape[1:]), "uniform"))
        return self.bare.logits(x + self.height * torch.sin(self.frequency * x + phase), noise)


class Saturated(_Masked):
    """Masking by vanishing gradients: logits so large that the softmax and the cross-entropy are flat.

    Args:
        dataset: of the network.
        scale: of the logits.
    """

    def __init__(self, dataset: str = "digits", scale: float = 1e4):
        super().__init__(dataset)
        self.scale = scale

    def logits(self, x: Tensor, noise: Noise, *, gradient: str = "exact", runs: int | None = None) -> Tensor:  # noqa: ARG002
        """See `Defense.logits`."""
        return self.scale * self.bare.logits(x, noise)
