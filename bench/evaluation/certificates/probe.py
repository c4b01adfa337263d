"""Images, noise and a combination of logits: all measurements of a certificate differentiate the same function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.evaluation.certificates.certificate import MOST_LEFT_OUT, Measurement
from bench.evaluation.certificates.differences import LIMIT, Value, against_differences, gradient_of, jittered
from defenses.core.defense import Defense, Purified
from defenses.core.detector import unguarded
from defenses.core.noise import Noise
from defenses.core.purifier import Purifier

_DIRECTIONS = 3  # of central differences

Loop = Callable[[Purifier, Tensor, Noise], Tensor]  # runs the steps of a purifier


@dataclass(frozen=True)
class Probe:
    """The images, noise and directions of all measurements."""

    x: Tensor
    seed: int

    def near(self, i: int = 0) -> Tensor:
        """Return the i-th images beside the given ones, whose pixels do not tie, float32 [B, C, H, W]."""
        return jittered(self.x, self.seed + i).float()

    def noise(self) -> Noise:
        """Return new streams of the same noise."""
        return Noise.of(self.seed, len(self.x), self.x.device)

    def value(self, defense: Defense, x: Tensor, loop: Loop | None = None) -> Tensor:
        """Return a fixed combination [B] of the logits of one run, under the same noise every time.

        `loop` runs the steps of the purifier; None: as the defense does.
        """
        noise = self.noise()
        if loop is None:
            logits = defense.logits(x, noise, runs=1)
        else:
            inside = unguarded(defense)
            assert isinstance(inside, Purified)
            logits = inside.classifier.logits(loop(inside.purifier, x, noise.copies(1)), noise)
        generator = torch.Generator().manual_seed(self.seed)
        return logits @ torch.randn(logits.shape[-1], generator=generator).to(logits)

    def gradient(self, defense: Defense, dtype: torch.dtype, loop: Loop | None = None, i: int = 0) -> Tensor:
        """Return the gradient of `value` at the i-th points, float64 [B, C, H, W], computed in `dtype`."""
        return gradient_of(lambda x: self.value(defense, x, loop), self.near(i).to(dtype))

    def against_differences(
        self,
        name: str,
        value: Value,
        *,
        directions: int = _DIRECTIONS,
        over: Callable[[Tensor], Tensor] = torch.amax,
        most: float = MOST_LEFT_OUT,
    ) -> Measurement:
        """Return the error of directional derivatives, the largest (`over`) of all directions and images."""
        errors = against_differences(value, self.x, seed=self.seed, directions=directions)
        points, left_out = len(errors.values), int(errors.left_out.sum())
        note = f"{left_out} of {points} points left out, at kinks" if left_out else ""
        return Measurement(name, errors.over(over), LIMIT, note=note, points=points, left_out=left_out, most=most)
