"""MagNet's detectors (Meng & Chen, CCS 2017, arXiv 1705.09064): the change by an autoencoder of clean images."""

from __future__ import annotations

from torch import Tensor, nn

from defenses.core.defense import Classifier
from defenses.core.detector import Detector
from defenses.core.noise import Noise
from defenses.networks.registry import NetworkLoader
from defenses.utils.errors import UserError, check_numbers


class Reconstruction(Detector):
    """mean |x - AE(x)|^p over pixels.

    Args:
        autoencoder: images [B, C, H, W] in [0, 1] -> the same.
        p: the power, 1 or 2 in the paper.

    Raises:
        UserError: p below 1.
    """

    def __init__(self, autoencoder: nn.Module, *, p: float = 1.0):
        super().__init__()
        check_numbers(p=p)
        if p < 1:
            raise UserError(f"p is {p}; it must be at least 1")
        self.autoencoder, self.p = autoencoder, p

    def scores(self, x: Tensor, noise: Noise, classifier: Classifier) -> Tensor:
        """Return the reconstruction errors [B]."""
        error: Tensor = (x - self.autoencoder(x)).abs().pow(self.p).flatten(1).mean(1)
        return error


class Divergence(Detector):
    """The Jensen-Shannon divergence of softmax(f(x) / T) and softmax(f(AE(x)) / T), in [0, log 2].

    Args:
        autoencoder: images [B, C, H, W] in [0, 1] -> the same.
        temperature: T, 10 or 40 in the paper.

    Raises:
        UserError: T is not positive.
    """

    def __init__(self, autoencoder: nn.Module, *, temperature: float = 10.0):
        super().__init__()
        check_numbers(temperature=temperature)
        if temperature <= 0:
            raise UserError(f"temperature is {temperature}; it must be positive")
        self.autoencoder, self.temperature = autoencoder, temperature

    def scores(self, x: Tensor, noise: Noise, classifier: Classifier) -> Tensor:
        """Return the divergences [B]."""
        logits = classifier.logits(x, noise), classifier.logits(self.autoencoder(x), noise)
        logs = [(z / self.temperature).log_softmax(1).double() for z in logits]
        middle = ((logs[0].exp() + logs[1].exp()) / 2).log()
        divergence: Tensor = sum((a.exp() * (a - middle)).sum(1) for a in logs) / 2  # type: ignore[assignment]
        return divergence.to(x.dtype)


def reconstruction(network: NetworkLoader, *, p: float) -> Reconstruction:
    """Return `Reconstruction` with the autoencoder `magnet`."""
    return Reconstruction(network("magnet", "autoencoder", "variational autoencoder"), p=p)


def divergence(network: NetworkLoader, *, temperature: float) -> Divergence:
    """Return `Divergence` with the autoencoder `magnet`."""
    return Divergence(network("magnet", "autoencoder", "variational autoencoder"), temperature=temperature)
