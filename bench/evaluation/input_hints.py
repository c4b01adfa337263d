"""Find the images that a model would take in place of those it refuses, and name the remedy."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_BATCHES = (1, 2, 3, 4, 5, 8, 10, 16, 20, 25, 32, 50, 64, 100, 128, 256)
_SIDES = (28, 32, 64, 96, 112, 128, 160, 192, 224, 240, 256, 288, 299, 336, 384)  # of published networks


def takes(logits_of: Callable[[Tensor], Tensor], x: Tensor) -> str:
    """Return what a model takes in place of images that it refuses, and the remedy; "" if nothing was found.

    Args:
        logits_of: the model.
        x: the images, float32 [B, C, H, W].
    """
    image = x[:1]
    for size in (n for n in _BATCHES if n != len(x)):
        if _runs(logits_of, image.expand(size, -1, -1, -1)):
            return f"it takes batches of {size}; {_wrap(size)}"
    channels = x.shape[1]
    for c in dict.fromkeys((channels, 3, 1)):
        for side in (0, *_SIDES):
            if (c, side) != (channels, 0) and _runs(logits_of, _resized(x, c, side)):
                return _other_images(channels, c, side)
    return ""


def of_one(size: int) -> str:
    """Return the remedy for a model that takes a batch of `size` images but not a single one."""
    return f"keep the first axis (x.flatten(1), not x.squeeze() or x.view({size}, -1)), or {_wrap(size)}"


def _wrap(size: int) -> str:
    return f"wrap the model, which fills up other batches: defenses.FixedBatch(model, {size})"


def _other_images(channels: int, c: int, side: int) -> str:
    """Return the images that a model takes, and how the given ones are made such."""
    resize = f"torchvision.transforms.Resize(({side}, {side}))"
    taken = " and ".join([f"{side}x{side} pixels"] * bool(side) + [f"{c} channels"] * (c != channels))
    if c == channels:
        return f"it takes images of {taken}; put the size before it: torch.nn.Sequential({resize}, model)"
    text = "x.mean(1, keepdim=True)" if c == 1 else f"x.expand(-1, {c}, -1, -1)"
    return f"it takes images of {taken}; call it on {f'{resize}({text})' if side else text} in a module of your own"


def _resized(x: Tensor, channels: int, side: int) -> Tensor:
    """Return images of other channels and another size (0: the same)."""
    image = x[:2] if x.shape[1] == channels else x[:2, :1].expand(-1, channels, -1, -1)
    return torch.nn.functional.interpolate(image, size=(side, side)) if side else image


def _runs(logits_of: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    """Return True if a model returns one row of logits for each image."""
    try:
        logits = logits_of(x.contiguous())
    except Exception:
        return False
    return isinstance(logits, Tensor) and logits.ndim == 2 and len(logits) == len(x)
