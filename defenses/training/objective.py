"""What a training method is to the loop: a loss, what happens after a step, and what is measured and shipped."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from defenses.errors import UserError, unknown

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Material:
    """What is trained on: images float32 [N, C, H, W] in [0, 1], labels int64 [N]; and the same for validation."""

    x: Tensor
    y: Tensor
    x_validation: Tensor
    y_validation: Tensor

    def to(self, device: torch.device) -> Material:
        """The same on a device."""
        return Material(*(getattr(self, f.name).to(device) for f in dataclasses.fields(self)))


class Objective(ABC):
    """One training method.

    Attributes:
        select: metric of `validate` by which the best checkpoint is shipped; None ships the last.
    """

    select: ClassVar[str | None] = None

    def __init__(self, network: nn.Module, data: Material, seed: int):
        self.network, self.data, self.seed = network, data, seed
        self.device = data.x.device

    @abstractmethod
    def loss(self, index: Tensor, step: int) -> Tensor:
        """The scalar to descend on, at step `step` with the training images `index`."""

    def after(self, step: int) -> None:  # noqa: B027
        """Called after the optimizer's step."""

    def state(self) -> dict[str, Tensor]:
        """Tensors beside the network that a checkpoint has to hold."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027
        """Put back what `state` gave."""

    def monitor(self) -> dict[str, float]:
        """Numbers of the last step, for the progress line."""
        return {}

    def validate(self) -> dict[str, float]:
        """Metrics on validation images; draws the same noise every time."""
        return {}

    def shipped(self) -> dict[str, Tensor]:
        """The weights to ship (a state dict)."""
        return self.network.state_dict()


def settings_of(cls: type[T], table: Mapping[str, Any]) -> T:
    """A dataclass of settings from a table of a recipe.

    Raises:
        UserError: a key that the dataclass has not, or one that is missing.
    """
    known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            raise unknown("recipe key", key, known)
    try:
        return cls(**table)
    except TypeError as error:
        raise UserError(f"recipe: {error}") from None


@torch.no_grad()
def accuracy(network: nn.Module, x: Tensor, y: Tensor, batch: int = 1000) -> float:
    """Share of images that a network classifies correctly."""
    hits = [
        (network(a).argmax(1) == b).sum() for a, b in zip(torch.split(x, batch), torch.split(y, batch), strict=True)
    ]
    return float(torch.stack(hits).sum()) / len(y)
