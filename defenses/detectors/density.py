"""How an image stands to a model of clean images: the length of its score, and its likelihood."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from defenses.base import Classifier
from defenses.detector import Detector
from defenses.errors import UserError, check_numbers
from defenses.noise import Noise


class ScoreNorm(Detector):
    """|| f(x) ||_2 of ADP's score network (Yoon, Hwang & Lee 2021), without a division by sigma.

    Args:
        score: images [B, C, H, W] in [0, 1] -> f.
    """

    def __init__(self, score: nn.Module):
        super().__init__()
        self.score = score

    def scores(self, x: Tensor, noise: Noise, classifier: Classifier) -> Tensor:  # noqa: ARG002
        """See the class."""
        length: Tensor = torch.linalg.vector_norm(self.score(x).flatten(1), dim=1)
        return length


class Energy(Detector):
    """U(x) = f(2x - 1) / T of an energy-based model: -log p(x) up to a constant (Hill, Mitchell & Zhu 2021).

    Args:
        energy: images in [-1, 1] -> f [B].
        temperature: T, of the training.

    Raises:
        UserError: T is not positive.
    """

    def __init__(self, energy: nn.Module, *, temperature: float):
        super().__init__()
        check_numbers(temperature=temperature)
        if temperature <= 0:
            raise UserError(f"temperature is {temperature}; it must be positive")
        self.energy, self.temperature = energy, temperature

    def scores(self, x: Tensor, noise: Noise, classifier: Classifier) -> Tensor:  # noqa: ARG002
        """See the class."""
        nats: Tensor = self.energy(2 * x - 1) / self.temperature
        return nats


def score_norm(network: Callable[[str], nn.Module]) -> ScoreNorm:
    """See `ScoreNorm`; the network is ADP's."""
    return ScoreNorm(network("adp"))


def likelihood(network: Callable[[str], nn.Module], *, temperature: float) -> Energy:
    """See `Energy`; the network is that of ebm-mcmc."""
    return Energy(network("ebm-mcmc"), temperature=temperature)
