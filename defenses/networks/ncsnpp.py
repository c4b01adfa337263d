"""DDPM++ and NCSN++ of Song et al. 2021 (arXiv 2011.13456, appendix H), as their CIFAR-10 VP and sub-VP models are.

BigGAN residual blocks without FIR filters, positional time embedding, no progressive growing, skips scaled by
1 / sqrt 2. Parameters have the release's names and order, so that its files load without a table of names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defenses.networks.sde import sde_of
from defenses.utils.errors import UserError

STEPS = 999  # time 1 as the network's label


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(max(1, min(channels // 4, 32)), channels, eps=1e-6)


class _Pointwise(nn.Module):
    """A 1x1 convolution with weight [in, out]."""

    def __init__(self, channels: int):
        super().__init__()
        self.W = nn.Parameter(torch.randn(channels, channels) * (0.1 / channels) ** 0.5)
        self.b = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bchw,cd->bdhw", x, self.W) + self.b[:, None, None]


class _Attention(nn.Module):
    """Self-attention over the pixels, one head."""

    def __init__(self, channels: int):
        super().__init__()
        self.GroupNorm_0 = _norm(channels)
        self.NIN_0, self.NIN_1, self.NIN_2, self.NIN_3 = (_Pointwise(channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.GroupNorm_0(x)
        q, k, v = (part(h).flatten(2).transpose(1, 2) for part in (self.NIN_0, self.NIN_1, self.NIN_2))
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        return (x + self.NIN_3(h)) / math.sqrt(2)  # type: ignore[no-any-return]


class _Block(nn.Module):
    """BigGAN's residual block; `resample` halves ("down") or doubles ("up") the image."""

    def __init__(self, wide: int, out: int, embedding: int, *, resample: str = "", dropout: float = 0.1):
        super().__init__()
        self.resample = resample
        self.GroupNorm_0 = _norm(wide)
        self.Conv_0 = nn.Conv2d(wide, out, 3, padding=1)
        self.Dense_0 = nn.Linear(embedding, out)
        self.GroupNorm_1 = _norm(out)
        self.Dropout_0 = nn.Dropout(dropout)
        self.Conv_1 = nn.Conv2d(out, out, 3, padding=1)
        self.Conv_2 = nn.Conv2d(wide, out, 1) if wide != out or resample else None

    def _resized(self, x: Tensor) -> Tensor:
        if self.resample == "up":
            return F.interpolate(x, scale_factor=2, mode="nearest")
        return F.avg_pool2d(x, 2) if self.resample == "down" else x

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self._resized(F.silu(self.GroupNorm_0(x)))
        h = self.Conv_0(h) + self.Dense_0(F.silu(embedding))[:, :, None, None]
        h = self.Conv_1(self.Dropout_0(F.silu(self.GroupNorm_1(h))))
        x = self._resized(x)
        return ((x if self.Conv_2 is None else self.Conv_2(x)) + h) / math.sqrt(2)  # type: ignore[no-any-return]


def _embedding(labels: Tensor, channels: int) -> Tensor:
    """Return sines and cosines of labels [B] as [B, channels], with frequencies geometric from 1 to 1e-4."""
    half = channels // 2
    rates = torch.exp(-math.log(10000) / (half - 1) * torch.arange(half, device=labels.device, dtype=labels.dtype))
    angle = labels[:, None] * rates
    return torch.cat([angle.sin(), angle.cos()], 1)


class NCSNpp(nn.Module):
    """U-Net of DDPM++ and NCSN++; the defaults are `cifar10_ddpmpp_deep_continuous`.

    Args:
        in_channels: C.
        size: H = W; divisible by 2^(number of multipliers - 1).
        channels: nf, even.
        multipliers: channels of every resolution, in units of nf.
        blocks: residual blocks of a resolution.
        attention: resolutions with self-attention.
        dropout: inside the blocks, in training.
        sde: name of the SDE of its training, see `defenses.networks.sde.sde_of`.

    Raises:
        UserError: odd channels, or a size that cannot be halved at every resolution.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        size: int = 32,
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 8,
        attention: Sequence[int] = (16,),
        dropout: float = 0.1,
        sde: str = "vp",
    ):
        super().__init__()
        if channels % 2 or channels < 4 or size % 2 ** (len(multipliers) - 1):
            halved = len(multipliers) - 1
            raise UserError(f'network "ncsnpp" halves images {halved} times and wants even channels of at least 4')
        self.sde, self.channels, self.blocks, self.levels = sde_of(sde), channels, blocks, len(multipliers)
        self.attention = tuple(attention)
        embedding = [nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, 4 * channels)]
        first = nn.Conv2d(in_channels, channels, 3, padding=1)
        body = self._body(size, multipliers, dropout)
        last = [_norm(multipliers[0] * channels), nn.Conv2d(multipliers[0] * channels, in_channels, 3, padding=1)]
        self.all_modules = nn.ModuleList([*embedding, first, *body, *last])

    def _body(self, size: int, multipliers: Sequence[int], dropout: float) -> list[nn.Module]:
        """Return blocks and attention in the order of the forward pass: down, middle, up."""
        parts: list[nn.Module] = []
        wide, skips = self.channels, [self.channels]

        def block(out: int, skip: int = 0, resample: str = "") -> None:
            nonlocal wide
            parts.append(_Block(wide + skip, out, 4 * self.channels, resample=resample, dropout=dropout))
            wide = out

        for level, times in enumerate(multipliers):
            for _ in range(self.blocks):
                block(times * self.channels)
                if size >> level in self.attention:
                    parts.append(_Attention(wide))
                skips.append(wide)
            if level + 1 < self.levels:
                block(wide, resample="down")
                skips.append(wide)
        block(wide)
        parts.append(_Attention(wide))
        block(wide)
        for level, times in reversed(list(enumerate(multipliers))):
            for _ in range(self.blocks + 1):
                block(times * self.channels, skips.pop())
            if size >> level in self.attention:
                parts.append(_Attention(wide))
            if level:
                block(wide, resample="up")
        return parts

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Map noisy data of the SDE [B, C, H, W] and times [B] in [0, 1] to the noise [B, C, H, W]."""
        parts = iter(self.all_modules)
        embedding = next(parts)(_embedding(STEPS * t, self.channels))
        embedding = next(parts)(F.silu(embedding))
        h = next(parts)(x)
        skips = [h]
        for level in range(self.levels):
            for _ in range(self.blocks):
                h = next(parts)(h, embedding)
                h = self._attended(h, parts)
                skips.append(h)
            if level + 1 < self.levels:
                h = next(parts)(h, embedding)
                skips.append(h)
        h = next(parts)(h, embedding)
        h = next(parts)(h)
        h = next(parts)(h, embedding)
        for level in reversed(range(self.levels)):
            for _ in range(self.blocks + 1):
                h = next(parts)(torch.cat([h, skips.pop()], 1), embedding)
            h = self._attended(h, parts)
            if level:
                h = next(parts)(h, embedding)
        h = F.silu(next(parts)(h))
        return next(parts)(h)  # type: ignore[no-any-return]

    def _attended(self, h: Tensor, parts: Iterator[nn.Module]) -> Tensor:
        return next(parts)(h) if h.shape[-1] in self.attention else h
