"""What a defense knows of an image: the input of its last linear layer, one run of the defense at a time."""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch import Tensor, nn

from defenses.core.defense import Defense, Foreign
from defenses.core.noise import Noise

_ROWS = 1024  # at once, without a graph


class Features:
    """The features on which a defense decides.

    They are what goes into the linear layer that runs last; the logits, where there is none or it sees other rows than
    the images (ensembles, patches).

    Args:
        defense: the defense.
        x: some images [B, C, H, W] in [0, 1], on which the layer is looked for.
    """

    def __init__(self, defense: Defense, x: Tensor):
        self.defense = defense
        self._layer: nn.Linear | None = None
        ran: list[nn.Linear] = []
        with ExitStack() as hooks, torch.no_grad():
            for layer in (m for m in defense.modules() if isinstance(m, nn.Linear)):
                handle = layer.register_forward_pre_hook(lambda module, _: ran.append(module))
                hooks.callback(handle.remove)
            self._logits(x, Noise.of(0, len(x), x.device), defense.gradients[0])
        if ran:
            self._layer = ran[-1]
            if len(self(x, Noise.of(0, len(x), x.device))) != len(x):
                self._layer = None

    def __call__(self, x: Tensor, noise: Noise, *, gradient: str | None = None) -> Tensor:
        """Features [B, D] of one run.

        Args:
            x: images [B, C, H, W] in [0, 1].
            noise: B streams.
            gradient: mode of a backward pass; None: the first that the defense has.
        """
        mode = gradient or self.defense.gradients[0]
        if self._layer is None:
            return self._logits(x, noise, mode)
        seen: list[Tensor] = []
        handle = self._layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            self._logits(x, noise, mode)
        finally:
            handle.remove()
        return torch.cat(seen).flatten(1)

    def mean(self, x: Tensor, copies: int, seed: int) -> Tensor:
        """Features [B, D], averaged over copies with noise of their own; without a graph."""
        with torch.no_grad():
            if not self.defense.stochastic:
                return self(x, Noise.of(seed, len(x), x.device))
            if isinstance(self.defense, Foreign):  # copies in one call would share its draws
                return torch.stack([self(x, Noise.of(seed + i, len(x), x.device)) for i in range(copies)]).mean(0)
            keys = Noise.of(seed, len(x), x.device).copies(copies).keys
            parts = zip(x.repeat_interleave(copies, 0).split(_ROWS), keys.split(_ROWS), strict=True)
            return torch.cat([self(p, Noise(k)) for p, k in parts]).view(len(x), copies, -1).mean(1)

    def _logits(self, x: Tensor, noise: Noise, gradient: str) -> Tensor:
        return self.defense.logits(x, noise, gradient=gradient, runs=1)
