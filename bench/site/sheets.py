"""Sheets of pictures: clean and adversarial images and their differences, as one PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from defenses.utils.arrays import F32, U8

SIDE, BYTES = 96, 120_000  # pixels of a larger picture after scaling, and bytes of a sheet, at most
ACROSS = 8  # images side by side in a sheet
GREY = 128  # no difference
GAP = 1  # pixels between two panels of an image


@dataclass(frozen=True)
class Sheet:
    """A PNG with several panels for each image: clean, adversarial, difference; without clean images one panel.

    Args:
        png: the file.
        width: of a panel, pixels.
        height: of a panel, pixels.
        panels: 3, or 1 without clean images.
        count: number of images; image i stands at row i // `ACROSS` and column i % `ACROSS`.
    """

    png: bytes
    width: int
    height: int
    panels: int
    count: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the whole sheet, pixels."""
        return self.across * min(self.count, ACROSS), self.height * -(-self.count // ACROSS)

    @property
    def across(self) -> int:
        """Width of the panels of an image with the gaps between them, pixels."""
        return self.panels * (self.width + GAP) - GAP

    def place(self, image: int) -> tuple[int, int]:
        """Return the left upper corner of the panels of an image, pixels."""
        return image % ACROSS * self.across, image // ACROSS * self.height


def sheet_of(clean: Sequence[F32] | None, adversarial: Sequence[F32], scale: float) -> Sheet:
    """Return the sheet of as many of the first images as a file of `BYTES` holds, at least one.

    Args:
        clean: images [C, H, W] in [0, 1], C of 1 or 3; None: not stored.
        adversarial: the same after the attack, at least one.
        scale: difference that is shown black or white, in (0, 1].
    """
    attacked = np.stack(adversarial)  # at once: images are small and many
    shown = [pixels(attacked)]
    if clean is not None:
        before = np.stack(clean)
        shown = [pixels(before), *shown, difference(before, attacked, scale)]
    panels = list(zip(*shown, strict=True))
    count = len(panels)
    while True:
        png = _png(panels[:count])
        if len(png) <= BYTES or count == 1:
            height, width = panels[0][0].shape[:2]
            return Sheet(png, width, height, len(panels[0]), count)
        count = max(1, min(count - 1, int(count * BYTES / len(png))))


def pixels(image: F32) -> U8:
    """Return an image [C, H, W], or several [N, C, H, W], as bytes, uint8 [H, W, C] or [N, H, W, C]."""
    return np.moveaxis(np.round(255 * np.clip(np.nan_to_num(image), 0, 1)).astype(np.uint8), -3, -1)


def difference(clean: F32, adversarial: F32, scale: float) -> U8:
    """Return a difference as bytes, uint8 [H, W, C]: `GREY` is none, 1 and 255 are -scale and +scale or more.

    Args:
        clean: image [C, H, W] in [0, 1], or several [N, C, H, W].
        adversarial: the same after the attack.
        scale: see `sheet_of`.
    """
    share = np.clip(np.nan_to_num(adversarial.astype(np.float64) - clean) / scale, -1, 1)
    return np.moveaxis(np.round(GREY + 127 * share).astype(np.uint8), -3, -1)


def fitting(images: F32) -> F32:
    """Return images [N, C, H, W] whose sides are at most `SIDE`, each pixel the mean of those that it stands for."""
    height, width = images.shape[2:]
    longest = max(height, width)
    if longest <= SIDE:
        return images
    from PIL import Image  # slow to import

    size = tuple(max(1, round(side * SIDE / longest)) for side in (width, height))
    planes = images.astype(np.float32).reshape(-1, height, width)
    small = [np.asarray(Image.fromarray(plane, "F").resize(size, Image.Resampling.BOX)) for plane in planes]
    return np.stack(small).reshape(*images.shape[:2], size[1], size[0])


def _png(images: Sequence[Sequence[U8]]) -> bytes:
    """Return panels as a PNG without metadata: the same bytes for the same pixels."""
    from PIL import Image  # slow to import

    height, width, channels = images[0][0].shape
    across = len(images[0]) * (width + GAP) - GAP
    columns = min(len(images), ACROSS)
    whole = np.full((height * -(-len(images) // ACROSS), across * columns, channels), GREY, np.uint8)
    for i, panels in enumerate(images):
        top, left = i // ACROSS * height, i % ACROSS * across
        for j, panel in enumerate(panels):
            begin = left + j * (width + GAP)
            whole[top : top + height, begin : begin + width] = panel
    buffer = io.BytesIO()
    Image.fromarray(whole[:, :, 0] if channels == 1 else whole).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()
