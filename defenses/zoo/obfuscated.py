"""Defenses that only look robust: what an audit must find. Each stands before or behind the undefended network.

Name them in a board as "defenses.zoo.obfuscated:Quantised", with params = { dataset = "digits" }.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from defenses.core.defense import Classifier, Defense
from defenses.core.noise import Draw, Noise
from defenses.utils.errors import check_whole


class _Masked(Defense):
    """The undefended network of a data set, masked.

    Args:
        dataset: whose network it is.
    """

    def __init__(self, dataset: str = "digits"):
        from defenses.zoo.registry import load_model

        super().__init__()
        bare = load_model("undefended", dataset)
        assert isinstance(bare, Classifier)
        self.bare = bare
        self.num_classes, self.input_shape = bare.num_classes, bare.input_shape
        self.train(False)


class Quantised(_Masked):
    """Masks by quantisation: pixels are rounded to a few levels, which has no gradient (Buckman et al. 2018).

    Args:
        dataset: whose network it is.
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
    """Masks by randomness: a fine ripple of random phase, hardly visible, but its slope drowns every gradient.

    Each pixel becomes x + height * sin(frequency * x + phase): noise of at most `height`, whose derivative is larger
    than one by height * frequency and has a random sign.

    Args:
        dataset: whose network it is.
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
    """Masks by vanishing gradients: logits so large that the softmax, and with it the cross-entropy, is flat.

    Args:
        dataset: whose network it is.
        scale: of the logits.
    """

    def __init__(self, dataset: str = "digits", scale: float = 1e4):
        super().__init__(dataset)
        self.scale = scale

    def logits(self, x: Tensor, noise: Noise, *, gradient: str = "exact", runs: int | None = None) -> Tensor:  # noqa: ARG002
        """See `Defense.logits`."""
        return self.scale * self.bare.logits(x, noise)
