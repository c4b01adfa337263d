"""A purifier of your own, by the step protocol. In a board, before any classifier that has a name:

    name = "own_purifier.py:OwnPurifier"
    params = { classifier = "undefended", runs = 4, combine = "softmax-mean", strength = 0.5 }

From Python: Purified(OwnPurifier(strength=0.5), load_model("undefended"), runs=4).

With these methods come: exact gradients in the memory of one path, BPDA, the blind view, EOT copies, a noise stream per
image, combination of runs, and cost in evaluations.
"""

import torch
from torch import Tensor

from defenses.core.noise import Draw
from defenses.core.purifier import NoiseSpec, Purifier, State


class OwnPurifier(Purifier):
    """Noise once, then some steps towards the mean of each pixel's neighbours.

    Args:
        sigma: of the noise.
        strength: how far a step goes, in [0, 1].
        steps: how many.
    """

    def __init__(self, sigma: float = 0.1, strength: float = 0.25, steps: int = 3):
        super().__init__()
        self.sigma, self.strength, self.steps = sigma, strength, steps

    def noise(self, shape: tuple[int, ...]) -> NoiseSpec:
        """What an image of `shape` needs: here normal noise at the start (step=... would be drawn for every step)."""
        return NoiseSpec(start=(Draw(shape),))

    def start(self, x: Tensor, z: tuple[Tensor, ...]) -> tuple[State, State]:
        """(state, what all steps may look at). Every entry has the batch as its first axis."""
        return {"u": x + self.sigma * z[0]}, {}

    def step(self, state: State, ctx: State, k: int, z: tuple[Tensor, ...]) -> State:
        """A pure function: no generator, nothing kept in self, no writing into its arguments."""
        mean = torch.nn.functional.avg_pool2d(state["u"], 3, stride=1, padding=1, count_include_pad=False)
        return {"u": state["u"] + self.strength * (mean - state["u"])}

    def finish(self, state: State, ctx: State) -> Tensor:
        """The purified images."""
        return state["u"].clamp(0, 1)
