"""Detectors by models of clean images: the length of the score, the energy, and the likelihood of a diffusion model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from defenses.core.defense import Classifier
from defenses.core.detector import Detector
from defenses.core.noise import Noise
from defenses.networks.registry import NetworkLoader
from defenses.purifiers.diffusion.likelihood import bits_per_dim, dequantised, log_likelihood
from defenses.utils.errors import UserError, check_numbers, check_whole


class ScoreNorm(Detector):
    """|| f(x) ||_2 of ADP's score network (Yoon, Hwang & Lee 2021), without a division by sigma.

    Args:
        score: images [B, C, H, W] in [0, 1] -> f.
    """

    def __init__(self, score: nn.Module):
        super().__init__()
        self.score = score

    def scores(self, x: Tensor, noise: Noise, classifier: Classifier) -> Tensor:
        """Return the lengths of the score [B]."""
        length: Tensor = torch.linalg.vector_norm(self.score(x).flatten(1), dim=1)
        return length


class Energy(Detector):
    """U(x) = f(2x - 1) / T of an energy-based model: -log p(x) up to a constant (Hill, Mitchell & Zhu 2021).

    Args:
        energy: images in [-1, 1] -> f [B].
        temperature: T of the training.

    Raises:
        UserError: T is not positive.
    """

    def __init__(self, energy: nn.Module, *, temperature: float):
        super().__init__()
        check_numbers(temperature=temperature)
        if temperature <= 0:
            raise UserError(f"temperature is {temperature}; it must be positive")
        self.energy, self.temperature = energy, temperature

    def scores(self, x: Tensor, noise: Noise, classifier: Classifier) -> Tensor:
        """Return the energies [B] in nats."""
        nats: Tensor = self.energy(2 * x - 1) / self.temperature
        return nats


class FlowLikelihood(Detector):
    """Bits per dimension of an image under a diffusion model (Song et al. 2021, section 4.3).

    The noise dequantises the image and gives the probes of the divergence: under the same noise the score is the same,
    and images are independent. Its gradient is exact.

    Args:
        network: noise predictor with its SDE as attribute `sde`.
        steps: see `defenses.purifiers.diffusion.likelihood.Flow`; four calls each.
        probes: see `defenses.purifiers.diffusion.likelihood.Flow`.
        levels: grey levels of the data.

    Raises:
        UserError: a value out of range.
    """

    stochastic = True

    def __init__(self, network: nn.Module, *, steps: int, probes: int, levels: int):
        super().__init__()
        check_whole(1, steps=steps, probes=probes)
        check_whole(2, levels=levels)
        self.network, self.steps, self.probes, self.levels = network, steps, probes, levels

    def scores(self, x: Tensor, noise: Noise, classifier: Classifier) -> Tensor:
        """Return bits per dimension [B]."""
        dequantised_x = dequantised(x, noise, self.levels)
        nats = log_likelihood(self.network, dequantised_x, noise, probes=self.probes, steps=self.steps)
        return bits_per_dim(nats, x[0].numel(), self.levels)


def score_norm(network: NetworkLoader) -> ScoreNorm:
    """Return `ScoreNorm` with ADP's score network."""
    return ScoreNorm(network("adp", "score network"))


def likelihood(network: NetworkLoader, *, temperature: float) -> Energy:
    """Return `Energy` with the network of ebm-mcmc."""
    return Energy(network("ebm-mcmc", "energy of images in [-1, 1]"), temperature=temperature)


def sde_likelihood(trained: NetworkLoader, *, network: str, **parameters: int) -> FlowLikelihood:
    """Return `FlowLikelihood` with a trained noise predictor.

    Args:
        trained: function from a name to the trained network.
        network: name of the noise predictor's weights.
        **parameters: see `FlowLikelihood`.
    """
    return FlowLikelihood(trained(network, "noise predictor"), **parameters)
