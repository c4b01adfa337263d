"""Base of input filters: purifiers of a single operation, as defenses or in front of one (`filters`)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from defenses.core.noise import Draw
from defenses.core.purifier import NoiseSpec, Purifier, State
from defenses.utils.errors import UserError


class Filter(Purifier):
    """A purifier without steps: one function of the image and of noise."""

    steps = 0

    def draws(self, shape: tuple[int, ...]) -> tuple[Draw, ...]:
        """Return the draws of an image of `shape` (C, H, W). Default: none."""
        return ()

    @abstractmethod
    def filtered(self, x: Tensor, z: tuple[Tensor, ...]) -> Tensor:
        """Return the filtered images.

        Args:
            x: images [B, C, H, W] in [0, 1].
            z: their draws.

        Returns:
            Images of the same shape.
        """

    def noise(self, shape: tuple[int, ...]) -> NoiseSpec:
        """Return the draws of the filter, as start noise."""
        return NoiseSpec(start=self.draws(shape))

    def start(self, x: Tensor, z: tuple[Tensor, ...]) -> tuple[State, State]:
        """Apply the filter."""
        return {"x": self.filtered(x, z)}, {}

    def step(self, state: State, ctx: State, k: int, z: tuple[Tensor, ...]) -> State:
        """Return the state as it is."""
        return state

    def finish(self, state: State, ctx: State) -> Tensor:
        """Return the filtered images."""
        return state["x"]


def image_by_image(x: Tensor, transform: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Apply a function of single images, on the CPU.

    Args:
        x: images [B, C, H, W].
        transform: from an image [C, H, W] on the CPU and its row to an image of the same shape.

    Returns:
        Images like `x`, without a gradient.
    """
    if not len(x):
        return x.detach().clone()
    images = x.detach().cpu()
    return torch.stack([transform(image, row) for row, image in enumerate(images)]).to(x)


def within(name: str, value: float, low: float, high: float, *, whole: bool = False) -> None:
    """Refuse a parameter outside its range.

    Args:
        name: of the parameter.
        value: of the parameter.
        low: smallest value.
        high: largest value.
        whole: only whole numbers are in it.

    Raises:
        UserError: the value is outside, or no number.
    """
    if type(value) not in ((int,) if whole else (int, float)) or not low <= value <= high:
        raise UserError(f"{name} is {value!r}; it must be a {'whole ' * whole}number from {low:g} to {high:g}")
