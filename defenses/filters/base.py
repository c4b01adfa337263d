"""Input filters: purifiers of a single operation on the image, by name a defense and, in `filters`, in front of one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from torch import Tensor

from defenses.core.noise import Draw
from defenses.core.purifier import NoiseSpec, Purifier, State
from defenses.utils.errors import UserError


class Filter(Purifier):
    """A purifier that is one function of the image and of noise; it has no steps."""

    steps = 0

    def draws(self, shape: tuple[int, ...]) -> tuple[Draw, ...]:  # noqa: ARG002
        """What one image of `shape` (C, H, W) draws. Default: nothing."""
        return ()

    @abstractmethod
    def filtered(self, x: Tensor, z: tuple[Tensor, ...]) -> Tensor:
        """Images [B, C, H, W] in [0, 1] and their draws -> images of the same shape."""

    def noise(self, shape: tuple[int, ...]) -> NoiseSpec:
        """The draws, all before the image is touched."""
        return NoiseSpec(start=self.draws(shape))

    def start(self, x: Tensor, z: tuple[Tensor, ...]) -> tuple[State, State]:
        """The whole of the filter."""
        return {"x": self.filtered(x, z)}, {}

    def step(self, state: State, ctx: State, k: int, z: tuple[Tensor, ...]) -> State:  # noqa: ARG002
        """Nothing is left to do."""
        return state

    def finish(self, state: State, ctx: State) -> Tensor:  # noqa: ARG002
        """The filtered images."""
        return state["x"]


def image_by_image(x: Tensor, one: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Images through a function of a library that takes one at a time, on the CPU.

    Args:
        x: images [B, C, H, W].
        one: from an image [C, H, W] on the CPU and its row to an image of the same shape.

    Returns:
        Images like `x`, without a gradient.
    """
    import torch

    if not len(x):
        return x.detach().clone()
    images = x.detach().cpu()
    return torch.stack([one(image, row) for row, image in enumerate(images)]).to(x)


def within(name: str, value: float, low: float, high: float) -> None:
    """Refuse a parameter outside its range.

    Raises:
        UserError: it is outside, or no number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise UserError(f"{name} is {value!r}; it must be a number from {low:g} to {high:g}")


def whole(name: str, value: int, low: int, high: int) -> None:
    """Refuse a parameter that is no whole number in its range.

    Raises:
        UserError: it is none.
    """
    if type(value) is not int or not low <= value <= high:
        raise UserError(f"{name} is {value!r}; it must be a whole number from {low} to {high}")
