"""Features of an image: the input of a defense's last linear layer, in one run of the defense."""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch import Tensor, nn

from defenses.core.defense import Defense, UserModule
from defenses.core.noise import Noise

_ROWS = 1024  # batch size without a graph


class Features:
    """The features of a defense.

    They are the input of the linear layer that runs last, or the logits if there is none or its rows are not the images
    (ensembles, patches).

    Args:
        defense: the defense.
        x: images [B, C, H, W] in [0, 1], for a trial run that finds the layer.
    """

    def __init__(self, defense: Defense, x: Tensor):
        self.defense = defense
        self._layer: nn.Linear | None = None
        layers: list[nn.Linear] = []
        with ExitStack() as hooks, torch.no_grad():
            for layer in (m for m in defense.modules() if isinstance(m, nn.Linear)):
                handle = layer.register_forward_pre_hook(lambda module, _: layers.append(module))
                hooks.callback(handle.remove)
            self._logits(x, Noise.of(0, len(x), x.device), defense.gradients[0])
        if layers:
            self._layer = layers[-1]
            if len(self(x, Noise.of(0, len(x), x.device))) != len(x):
                self._layer = None

    def __call__(self, x: Tensor, noise: Noise, *, gradient: str | None = None) -> Tensor:
        """Return features [B, D] of one run.

        Args:
            x: images [B, C, H, W] in [0, 1].
            noise: B streams.
            gradient: gradient mode; None: the first of the defense.
        """
        mode = gradient or self.defense.gradients[0]
        if self._layer is None:
            return self._logits(x, noise, mode)
        inputs_of_layer: list[Tensor] = []
        handle = self._layer.register_forward_pre_hook(lambda _, inputs: inputs_of_layer.append(inputs[0]))
        try:
            self._logits(x, noise, mode)
        finally:
            handle.remove()
        return torch.cat(inputs_of_layer).flatten(1)

    def mean(self, x: Tensor, copies: int, seed: int) -> Tensor:
        """Return features [B, D], averaged over copies with different noise; without a graph.

        Args:
            x: images [B, C, H, W] in [0, 1].
            copies: of each image.
            seed: of the noise.
        """
        with torch.no_grad():
            if not self.defense.stochastic:
                return self(x, Noise.of(seed, len(x), x.device))
            if isinstance(self.defense, UserModule):  # copies in one call would share its draws
                return torch.stack([self(x, Noise.of(seed + i, len(x), x.device)) for i in range(copies)]).mean(0)
            keys = Noise.of(seed, len(x), x.device).copies(copies).keys
            parts = zip(x.repeat_interleave(copies, 0).split(_ROWS), keys.split(_ROWS), strict=True)
            return torch.cat([self(p, Noise(k)) for p, k in parts]).view(len(x), copies, -1).mean(1)

    def _logits(self, x: Tensor, noise: Noise, gradient: str) -> Tensor:
        return self.defense.logits(x, noise, gradient=gradient, runs=1)
