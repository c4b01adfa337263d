"""A checkpoint of other code, read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds, in our terms.

    Args:
        name: what the weights are called unless told otherwise.
        kind: kind of network.
        args: its arguments.
        tensors: its tensors by our names.
        recipe: how it was trained, as far as published.
    """

    name: str
    kind: str
    args: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    recipe: Mapping[str, Any]
