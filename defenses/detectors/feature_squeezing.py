"""Feature squeezing (Xu, Evans & Qi, NDSS 2018, arXiv 1704.01155): predictions with and without simple filters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from defenses.core.backward import purified
from defenses.core.defense import Classifier
from defenses.core.detector import Detector
from defenses.core.noise import Noise
from defenses.filters.base import Filter
from defenses.filters.bit_depth import BitDepth
from defenses.filters.median import Median
from defenses.filters.non_local_means import NonLocalMeans
from defenses.utils.errors import UserError


class FeatureSqueezing(Detector):
    """max over squeezers s of || p(x) - p(s(x)) ||_1, p the softmax; in [0, 2].

    Backward, rounding and non-local means count as the identity; the median and the classifier have exact gradients.

    Args:
        squeezers: the filters, at least one.

    Raises:
        UserError: `squeezers` is empty.
    """

    def __init__(self, squeezers: list[Filter]):
        super().__init__()
        if not squeezers:
            raise UserError("feature squeezing needs a squeezer; set bits, median or search above 0")
        self.squeezers = nn.ModuleList(squeezers)
        self.differentiable = all(s.differentiable for s in squeezers)

    def scores(self, x: Tensor, noise: Noise, classifier: Classifier) -> Tensor:
        """Return the largest changes of the softmax [B]."""
        plain = classifier.logits(x, noise).softmax(1)
        return torch.stack([self._change(s, x, noise, classifier, plain) for s in self.squeezers], 1).amax(1)  # type: ignore[arg-type]

    def _change(self, squeezer: Filter, x: Tensor, noise: Noise, classifier: Classifier, plain: Tensor) -> Tensor:
        image = purified(squeezer, x, noise, "exact" if squeezer.differentiable else "bpda")
        return (plain - classifier.logits(image, noise).softmax(1)).abs().sum(1)

    def cost_modules(self) -> list[nn.Module]:
        """Return no networks: the classifier alone makes passes."""
        return []


def build(
    network: object,
    *,
    bits: int,
    median: int,
    search: int,
    patch: int,
    strength: float,
) -> FeatureSqueezing:
    """Return feature squeezing with some of three squeezers.

    Args:
        network: not used.
        bits: of the bit depth; 0: without it.
        median: side of the median's window; 0: without it.
        search: side of the search window of non-local means; 0: without them.
        patch: see `NonLocalMeans`.
        strength: see `NonLocalMeans`.

    Raises:
        UserError: a value out of range, or no squeezer.
    """
    means = NonLocalMeans(search=search or 1, patch=patch, strength=strength)  # checks its values even if unused
    squeezers: list[Filter] = [BitDepth(bits=bits)] if bits else []
    squeezers += [Median(window=median)] if median else []
    squeezers += [means] if search else []
    return FeatureSqueezing(squeezers)
