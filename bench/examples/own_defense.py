"""A defense of your own, with noise: a subclass of `Defense`. name = "own_defense.py:OwnDefense".

Noise is an argument, never drawn from a global generator: row i of a batch uses stream i of `noise`. So every image
meets the same draws whatever the attack, the batch and the number of processes.
"""

from own_classifier import OwnClassifier
from torch import Tensor

from defenses import Defense, Draw, Noise


class OwnDefense(Defense):
    """Classify the image plus normal noise: randomised smoothing without the vote.

    Args:
        sigma: of the noise; a board sets it with params = { sigma = 0.1 }.
    """

    stochastic = True
    gradients = ("exact", "blind")  # the views that `logits` knows

    def __init__(self, sigma: float = 0.2):
        super().__init__()
        self.network, self.sigma = OwnClassifier(), sigma

    def logits(self, x: Tensor, noise: Noise, *, gradient: str = "exact", runs: int | None = None) -> Tensor:
        """Return the logits of one draw for every image; "blind" leaves the noise out."""
        if gradient == "blind":
            return self.network(x)
        z = noise.draw(Draw(tuple(x.shape[1:])))  # [B, C, H, W], standard normal
        return self.network((x + self.sigma * z).clamp(0, 1))
