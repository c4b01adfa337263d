"""JEM: refinement of inputs by the energy of a classifier (Grathwohl et al., ICLR 2020, arXiv 1912.03263)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from defenses.core.noise import Draw
from defenses.core.purifier import NoiseSpec, State
from defenses.networks.registry import NetworkLoader
from defenses.purifiers.langevin import Langevin
from defenses.utils.errors import UserError, check_numbers


class JointEnergy(nn.Module):
    """f = -logsumexp of a classifier's logits: images in [-1, 1] -> [B].

    Args:
        classifier: images [B, C, H, W] in [0, 1] -> logits [B, K].
    """

    def __init__(self, classifier: nn.Module):
        super().__init__()
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] in [-1, 1] to f [B]."""
        logits: Tensor = self.classifier((x + 1) / 2)
        return -logits.logsumexp(1)


class Refinement(Langevin):
    """Noise, then Langevin steps on the classifier's energy, in [-1, 1]: u <- u - rate grad f(u) + eps Z.

    Args:
        classifier: images [B, C, H, W] in [0, 1] -> logits [B, K].
        steps: n.
        rate: factor of the gradient (JEM: 1).
        eps: standard deviation of the noise of a step (JEM: .01).
        sigma: standard deviation of the noise before the first step (JEM: .03).

    Raises:
        UserError: a value out of range.
    """

    def __init__(
        self,
        classifier: nn.Module,
        *,
        steps: int = 10,
        rate: float = 1.0,
        eps: float = 0.01,
        sigma: float = 0.03,
    ):
        check_numbers(rate=rate, eps=eps, sigma=sigma)
        if rate <= 0 or eps <= 0 or sigma < 0:
            text = "rate and eps must be positive and sigma at least 0"
            raise UserError(f"rate is {rate}, eps {eps} and sigma {sigma}; {text}")
        super().__init__(JointEnergy(classifier), eps=eps, temperature=eps**2 / (2 * rate), steps=steps)
        self.sigma = sigma

    def noise(self, shape: tuple[int, ...]) -> NoiseSpec:
        """Return one normal draw before the first step, none if sigma is 0, and one for every step."""
        return NoiseSpec(start=(Draw(shape),) if self.sigma else (), step=(Draw(shape),))

    def start(self, x: Tensor, z: tuple[Tensor, ...]) -> tuple[State, State]:
        """Scale images from [0, 1] to [-1, 1], and add noise."""
        u = 2 * x - 1
        return {"u": torch.add(u, z[0], alpha=self.sigma) if self.sigma else u}, {}


def build(network: NetworkLoader, **parameters: float) -> Refinement:
    """Return the refinement by the trained classifier.

    Args:
        network: function from a name to the trained network.
        **parameters: see `Refinement`.
    """
    return Refinement(network("jem", "classifier"), **parameters)  # type: ignore[arg-type]
