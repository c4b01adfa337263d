"""A purifier of your own: a subclass of `Purifier`, made of pure steps.

In a board, before any classifier that has a name:

    name = "own_purifier.py:OwnPurifier"
    params = { classifier = "undefended", runs = 4, combine = "softmax-mean", strength = 0.5 }

From Python: Purified(OwnPurifier(strength=0.5), load_model("undefended"), runs=4).

With these methods come: exact gradients in the memory of one path, BPDA, the blind view, EOT copies, a noise stream per
image, combination of runs, and cost in evaluations.
"""

import torch
from torch import Tensor

from defenses import Draw, NoiseSpec, Purifier, State


class OwnPurifier(Purifier):
    """Add noise once, then move each pixel some steps towards the mean of its neighbours.

    Args:
        sigma: of the noise.
        strength: how far a step goes, in [0, 1].
        steps: how many.
    """

    def __init__(self, sigma: float = 0.1, strength: float = 0.25, steps: int = 3):
        super().__init__()
        self.sigma, self.strength, self.steps = sigma, strength, steps

    def noise(self, shape: tuple[int, ...]) -> NoiseSpec:
        """Return the noise of an image of `shape`: normal noise at the start; `step=` would be drawn for every step."""
        return NoiseSpec(start=(Draw(shape),))

    def start(self, x: Tensor, z: tuple[Tensor, ...]) -> tuple[State, State]:
        """Return (state, what all steps may read); every entry has the batch as its first axis."""
        return {"u": x + self.sigma * z[0]}, {}

    def step(self, state: State, ctx: State, k: int, z: tuple[Tensor, ...]) -> State:
        """Return the next state. A pure function: no generator, nothing kept in self, no writing into its arguments."""
        mean = torch.nn.functional.avg_pool2d(state["u"], 3, stride=1, padding=1, count_include_pad=False)
        return {"u": state["u"] + self.strength * (mean - state["u"])}

    def finish(self, state: State, ctx: State) -> Tensor:
        """Return the purified images."""
        return state["u"].clamp(0, 1)
