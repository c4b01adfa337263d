"""Non-local means, the third squeezer of Xu, Evans and Qi (NDSS 2018)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from defenses.filters.base import Filter, image_by_image, within
from defenses.utils.errors import UserError


class NonLocalMeans(Filter):
    """Averages of pixels with similar neighbourhoods, by scikit-image, over all channels together.

    Args:
        search: side of the search window, odd.
        patch: side of the compared patches, odd.
        strength: filter strength, in 1/255 of the range of pixels.

    Raises:
        UserError: a parameter outside its range, or an even window.
    """

    differentiable = False

    def __init__(self, *, search: int = 13, patch: int = 3, strength: float = 2.0):
        super().__init__()
        for name, value in (("search", search), ("patch", patch)):
            within(name, value, 1, 99, whole=True)
            if value % 2 == 0:
                raise UserError(f"{name} is {value}; a window has a middle, so it must be odd")
        within("strength", strength, 1e-3, 1e3)
        self.search, self.patch, self.strength = search, patch, strength

    def filtered(self, x: Tensor, z: tuple[Tensor, ...]) -> Tensor:
        """Return averaged images."""
        from skimage.restoration import denoise_nl_means

        def averaged(image: Tensor, row: int) -> Tensor:
            # Channels last: scikit-image compares rows if a single channel comes first.
            pixels = image.double().permute(1, 2, 0).numpy()
            means = denoise_nl_means(
                pixels if len(image) > 1 else pixels[:, :, 0],
                patch_size=self.patch,
                patch_distance=self.search // 2,
                h=self.strength / 255,
                channel_axis=-1 if len(image) > 1 else None,
            )
            return torch.from_numpy(means).view(*image.shape[1:], -1).permute(2, 0, 1).to(image.dtype)

        return image_by_image(x, averaged)


def build(network: object, **parameters: Any) -> NonLocalMeans:
    """Return `NonLocalMeans`, which has no network."""
    return NonLocalMeans(**parameters)
