"""Keyed noise: a random stream for every row of a batch, addressed by integers and not by order of use.

A value depends on (row key, path, step, position) alone. So results do not change with the batch size, the order of
computation, resuming, or how many steps are drawn at once; the integers are the same on every device. The generator
is SplitMix64's finaliser (Steele et al. 2014) over a counter, applied twice with a 128-bit key; normals come from it
by Box and Muller's transform.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["normal", "uniform", "rademacher"]

_GAMMA = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64
_MIX1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX2 = -7723592293110705685  # 0x94D049BB133111EB
_COPIES = 0x434F5059  # so that copy n is not child n
_BLOCK = 1 << 17  # values per pass: they fit the cache


@dataclass(frozen=True)
class Draw:
    """Shape, without the batch axis, and law of the values of one row; "uniform" is on [0, 1)."""

    shape: tuple[int, ...]
    kind: Kind = "normal"


def _shift(z: Tensor, n: int) -> Tensor:
    return (z >> n) & ((1 << (64 - n)) - 1)


def _mix(z: Tensor) -> Tensor:
    return _mix_into(z.clone(), torch.empty_like(z))


def _mix_into(z: Tensor, scratch: Tensor) -> Tensor:
    """Mix z in place; in place, as memory takes longer than arithmetic."""
    for n, factor in ((30, _MIX1), (27, _MIX2), (31, 1)):
        z ^= torch.bitwise_right_shift(z, n, out=scratch).bitwise_and_((1 << (64 - n)) - 1)
        if factor != 1:
            z *= factor
    return z


def _as_int64(value: int) -> int:
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def _shape_values(bits: Tensor, kind: Kind) -> Tensor:
    """Return two float32 values for every 64 bits: [..., n] -> [..., n, 2]."""
    low, high = (bits & 0xFFFFFFFF), _shift(bits, 32)
    if kind == "normal":
        radius = low.float().add_(0.5).mul_(2.0**-32).log_().mul_(-2).sqrt_()
        angle = high.float().mul_(2 * math.pi * 2.0**-32)
        pair = torch.empty(*bits.shape, 2, device=bits.device)
        torch.mul(radius, torch.cos(angle), out=pair[..., 0])
        torch.mul(radius, angle.sin_(), out=pair[..., 1])
        return pair
    pair = torch.stack((low, high), -1)
    if kind == "uniform":
        return (pair >> 8).float() * 2.0**-24
    return ((pair >> 31) * 2 - 1).float()


class Noise:
    """Independent random streams, one for each row.

    Args:
        keys: int64 [rows, 2], the 128-bit key of every row.
    """

    def __init__(self, keys: Tensor):
        self.keys = keys

    @classmethod
    def of(cls, seed: int, rows: int | Sequence[int] | Tensor, device: torch.device | str = "cpu") -> Noise:
        """Return the streams of some rows of one seed.

        Args:
            seed: any integer.
            rows: number of rows, or their numbers (image indices, for example).
            device: where the values are drawn; it does not change them.
        """
        if isinstance(rows, Tensor):
            number = rows.to(device=device, dtype=torch.int64)
        elif isinstance(rows, int):
            number = torch.arange(rows, device=device)
        else:
            number = torch.tensor(list(rows), dtype=torch.int64, device=device)
        start = torch.full((len(number), 2), _as_int64(seed), device=device)
        start[:, 1] ^= _MIX1
        return cls(_mix(start + _GAMMA))._fold(number)

    def _fold(self, number: Tensor | int) -> Noise:
        step = number[:, None] * _GAMMA if isinstance(number, Tensor) else _as_int64(number * _GAMMA)
        keys = _mix(self.keys + step + 1)
        # Mix the halves, so that a collision needs all 128 bits.
        return Noise(_mix(keys ^ keys.flip(1) * _MIX2 ^ torch.tensor([0, _MIX1], device=keys.device)))

    def __len__(self) -> int:
        return len(self.keys)

    def child(self, *path: int | Tensor) -> Noise:
        """Return the streams named `path` below these.

        Args:
            *path: integers (draw number, run, purpose, ...), each for all rows, or int64 [rows].
        """
        noise = self
        for number in path:
            noise = noise._fold(number)
        return noise

    def copies(self, n: int) -> Noise:
        """Return n streams for every row, [rows * n], those of a row side by side (as `repeat_interleave`)."""
        index = torch.arange(n, device=self.keys.device).repeat(len(self))
        return Noise(self.child(_COPIES).keys.repeat_interleave(n, 0))._fold(index)

    def rows(self, index: Tensor | slice) -> Noise:
        """Return the streams of some rows."""
        return Noise(self.keys[index])

    def draw(self, what: Draw, steps: range | None = None) -> Tensor:
        """Return random values for every row.

        Args:
            what: shape and law of one row's values.
            steps: steps of the stream to draw at once; the values of a step do not depend on the others.

        Returns:
            float32 [rows, *shape], or [len(steps), rows, *shape].
        """
        span = range(1) if steps is None else steps
        numel = math.prod(what.shape)
        half = (numel + 1) // 2
        out = torch.empty(len(span), len(self), numel, device=self.keys.device)
        counter = torch.arange(half, device=self.keys.device)
        rows = max(1, min(len(self), _BLOCK // max(numel, 1)))
        at_once = max(1, _BLOCK // max(numel * rows, 1))  # steps
        offsets = (counter + half * torch.tensor(span, device=self.keys.device)[:, None, None]) * _GAMMA
        for k in range(0, len(span), at_once):
            for i in range(0, len(self), rows):
                keys = self.keys[i : i + rows]
                bits = keys[:, :1] + offsets[k : k + at_once]
                scratch = torch.empty_like(bits)
                bits = _mix_into(_mix_into(bits, scratch).bitwise_xor_(keys[:, 1:]), scratch)
                out[k : k + at_once, i : i + rows] = _shape_values(bits, what.kind).flatten(2)[..., :numel]
        out = out.view(len(span), len(self), *what.shape)
        return out[0] if steps is None else out

    def seed(self) -> int:
        """Return a non-negative 63-bit seed made of all rows, for code with a global generator."""
        folded = int(_mix(self.keys.sum(0)).sum().item()) if len(self) else 0
        return folded & ((1 << 63) - 1)
