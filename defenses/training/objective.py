"""The interface between training methods and the loop: loss, hooks of a step, metrics, weights to ship."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from defenses.core.purifier import Purifier
from defenses.networks.registry import Role
from defenses.training.arithmetic import Arithmetic
from defenses.utils.errors import UserError
from defenses.utils.validation import under, validated

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Material:
    """Images and labels of a training.

    Args:
        x: images float32 [N, C, H, W] in [0, 1].
        y: labels int64 [N].
        x_validation: validation images, not trained on.
        y_validation: their labels.
        trained: from the name of weights to a trained network, for methods that need one.
        purifier: likewise from the name of a defense to its purifier; None: there are none.
    """

    x: Tensor
    y: Tensor
    x_validation: Tensor
    y_validation: Tensor
    trained: Callable[[str], nn.Module]
    purifier: Callable[[str], Purifier] | None = None

    def to(self, device: torch.device) -> Material:
        """Return the material on a device."""
        x, y, *held = (v.to(device) for v in (self.x, self.y, self.x_validation, self.y_validation))
        purifier = None if (load := self.purifier) is None else lambda name: load(name).to(device)
        return Material(x, y, held[0], held[1], lambda name: self.trained(name).to(device), purifier)


class Objective(ABC):
    """A training method.

    Attributes:
        trains: roles of networks that it can train; recipes with others are refused.
        select: metric of `validate` that chooses the shipped checkpoint; None ships the last.
        replays: number of steps on the same batch.
        betas: of Adam.
        arithmetic: of the losses.
        table_type: dataclass of the method's settings; its annotations are the kinds of values in a recipe.
    """

    trains: ClassVar[tuple[Role, ...]]
    table_type: ClassVar[type[object]]
    select: ClassVar[str | None] = None
    replays: int = 1
    betas: tuple[float, float] = (0.9, 0.999)
    arithmetic: Arithmetic = Arithmetic()

    def __init__(self, network: nn.Module, data: Material, seed: int):
        self.network, self.data, self.seed = network, data, seed
        self.device = data.x.device

    @abstractmethod
    def loss(self, index: Tensor, step: int) -> Tensor:
        """Return the scalar to descend on, at step `step` with the training images `index`."""

    def before(self, step: int) -> None:  # noqa: B027
        """Change gradients; called between the backward pass and the optimizer's step."""

    def after(self, step: int) -> None:  # noqa: B027
        """Update state; called after the optimizer's step."""

    def state(self) -> dict[str, Any]:
        """Return the state of a checkpoint beside the network: tensors, numbers, texts, state dicts of these."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Restore what `state` returned."""

    def monitor(self) -> dict[str, float]:
        """Return numbers of the last step, for the progress line."""
        return {}

    def validate(self) -> dict[str, float]:
        """Return metrics on validation images, with the same noise every time."""
        return {}

    def shipped(self) -> dict[str, Tensor]:
        """Return the weights to ship (a state dict)."""
        return self.network.state_dict()


def settings_of(cls: type[T], table: Mapping[str, Any], where: str = "objective") -> T:
    """Return a dataclass of settings from a table of a recipe.

    Args:
        cls: the dataclass; its annotations are kinds of `defenses.utils.validation`.
        table: values by field.
        where: key of the table in the recipe.

    Raises:
        UserError: keys that are unknown or missing, and values of another kind or out of range, a line for each.
    """
    try:
        found: T = validated(cls, table, name=under(where))
        return found
    except UserError as error:
        raise error.within("recipe") from None


@torch.no_grad()
def accuracy(network: nn.Module, x: Tensor, y: Tensor, batch: int = 1000) -> float:
    """Return the share of images that a network classifies correctly.

    Args:
        network: classifier, in the mode to evaluate.
        x: images [N, C, H, W] in [0, 1].
        y: labels [N].
        batch: images at once.
    """
    hits = [
        (network(a).argmax(1) == b).sum() for a, b in zip(torch.split(x, batch), torch.split(y, batch), strict=True)
    ]
    return float(torch.stack(hits).sum()) / len(y)
