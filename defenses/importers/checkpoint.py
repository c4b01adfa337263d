"""The content of an imported checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from defenses.utils.json_values import JsonView

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of other code under purebench's names.

    Args:
        name: default name of the weights; "": they need one of the user's.
        kind: of the network.
        args: its arguments.
        tensors: by purebench's names.
        recipe: of its training, as far as published.
        clean: published accuracy of a classifier on all test images, in [0, 1]; None: unknown here.
    """

    name: str
    kind: str
    args: JsonView
    tensors: Mapping[str, Tensor]
    recipe: Mapping[str, object]
    clean: float | None = None
