"""Randomness of training: generators of their own for every step, keyed by (seed, purpose, step).

Resuming needs no state of generators: step k draws the same after step k - 1 and after a restart.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from defenses.utils.isolation import seeded_globals


def stream_seed(seed: int, purpose: str, number: int = 0) -> int:
    """Return a 63-bit seed for one purpose and step."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}/{number}".encode()).digest()[:8], "big") >> 1


def stream(seed: int, purpose: str, number: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator for one purpose and step."""
    return torch.Generator(device).manual_seed(stream_seed(seed, purpose, number))


def seeded_step(seed: int, number: int, device: torch.device) -> seeded_globals:
    """Return the context of a step of a network with dropout, which draws from torch's global generator."""
    return seeded_globals(stream_seed(seed, "dropout", number), device)


class Order:
    """The order of the data: a fresh permutation every epoch, whole batches only.

    Args:
        images: number of images.
        batch: images a step, at most all.
        seed: seed of the permutations.
    """

    def __init__(self, images: int, batch: int, seed: int):
        self.images, self.batch, self.seed = images, min(batch, images), seed
        self.per_epoch = images // self.batch
        self._epoch = -1
        self._permutation = torch.empty(0, dtype=torch.int64)

    def __call__(self, step: int) -> Tensor:
        """Return the indices int64 [batch] of step `step` (from 0)."""
        epoch, i = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._permutation = torch.randperm(self.images, generator=stream(self.seed, "order", epoch))
            self._epoch = epoch
        return self._permutation[i * self.batch : (i + 1) * self.batch]


def augmented(x: Tensor, generator: torch.Generator, *, shift: int = 0, flip: bool = False) -> Tensor:
    """Return images shifted at random by up to `shift` pixels (zeros come in) and flipped horizontally.

    Args:
        x: images [B, C, H, W].
        generator: of the draws.
        shift: pixels.
        flip: True to mirror each image with probability 1/2.

    Returns:
        Images of the same shape.
    """
    rows = torch.arange(len(x), device=x.device)
    if flip:
        mirrored = torch.rand(len(x), generator=generator, device=x.device) < 0.5
        x = torch.where(mirrored.view(-1, 1, 1, 1), x.flip(3), x)
    if shift:
        high, wide = x.shape[2:]
        padded = torch.nn.functional.pad(x, (shift,) * 4)
        by = torch.randint(0, 2 * shift + 1, (2, len(x), 1), generator=generator, device=x.device)
        at_y = (by[0] + torch.arange(high, device=x.device))[:, :, None]
        at_x = (by[1] + torch.arange(wide, device=x.device))[:, None, :]
        x = padded.permute(0, 2, 3, 1)[rows[:, None, None], at_y, at_x].permute(0, 3, 1, 2).contiguous()
    return x
