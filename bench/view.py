"""Attack views: what the attacker differentiates. Attack libraries see a view and never the defense."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bench.meter import Meter
from bench.viewspec import ViewSpec
from defenses.base import Defense, Foreign
from defenses.errors import UserError
from defenses.noise import Noise


class _Count:
    """Counters of a view: a module's own attributes are slow to set."""

    def __init__(self) -> None:
        self.calls = 0
        self.queries = 0


class AttackView(nn.Module):
    """A defense as an attack library sees it: images float32 [B, C, H, W] in [0, 1] -> logits [B, K].

    Every call draws noise of its own, keyed by (seed, number of the call, row): a library that reseeds the global
    generators does not replay it. Calls return fresh tensors, which a library may write into. The view works
    under `torch.autograd.grad` and `.backward()`, with or without `retain_graph`.

    Args:
        defense: the defense.
        spec: how it is looked at.
        seed: of the view's noise.
        rows: at most this many images times copies go through the defense at once (memory).

    Raises:
        UserError: the defense does not support the gradient mode.
    """

    def __init__(self, defense: Defense, spec: ViewSpec, *, seed: int, rows: int = 8192):
        super().__init__()
        if spec.gradient not in defense.gradients:
            raise UserError(
                f'this defense has no gradient mode "{spec.gradient}"; it has: {", ".join(defense.gradients)}'
            )
        self.defense, self.spec, self.seed = defense, spec, seed
        self._count = _Count()
        self.stochastic = defense.stochastic and spec.gradient != "blind"
        deployed: int = getattr(defense, "runs", 1)
        self._per_pass = max(1, rows // (spec.eot * (spec.runs or deployed)))
        # Some libraries read the device from the first parameter.
        self.anchor = nn.Parameter(torch.zeros(()), requires_grad=False)
        self._streams = Noise.of(seed, 0)
        self.train(False)

    @property
    def queries(self) -> int:
        """Images that the attack has asked about so far."""
        return self._count.queries

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, K]."""
        count = self._count
        count.calls += 1
        count.queries += len(x)
        if self.stochastic or len(x) > self._per_pass:
            logits = self._in_parts(x)
        else:
            logits = self.defense.logits(x, self._fixed(x), gradient=self.spec.gradient)
            if not logits.requires_grad:
                # Square writes into what it gets, which may be a tensor that the network keeps.
                logits = logits.clone()
        # Some attacks ask about NaN themselves (Foolbox's boundary attack, for images wrong from the start).
        if not math.isfinite(logits.detach().sum().item()) and not _only_from_bad_images(x, logits):
            raise FloatingPointError("the defense returned logits that are not finite during the attack")
        return logits

    def _fixed(self, x: Tensor) -> Noise:
        """Streams for a defense that does not use them: made once, since a call of a small network is short."""
        if len(self._streams) < len(x) or self._streams.keys.device != x.device:
            self._streams = Noise.of(self.seed, len(x), x.device)
        return self._streams.rows(slice(0, len(x)))

    def _in_parts(self, x: Tensor) -> Tensor:
        parts = torch.split(x, self._per_pass)
        if not self.stochastic:
            return torch.cat([self.defense.logits(p, self._fixed(p), gradient=self.spec.gradient) for p in parts])
        noise = Noise.of(self.seed, len(x), x.device).child(self._count.calls)
        keys = torch.split(noise.keys, self._per_pass)
        return torch.cat([self._expectation(p, Noise(k)) for p, k in zip(parts, keys, strict=True)])

    def _expectation(self, x: Tensor, noise: Noise) -> Tensor:
        by_copy = self._copies(x, noise)
        n = self.spec.eot
        if self.spec.output == "logits":
            return by_copy.mean(1)
        return by_copy.log_softmax(-1).logsumexp(1) - torch.log(torch.tensor(float(n), device=x.device))

    def _copies(self, x: Tensor, noise: Noise) -> Tensor:
        """Logits of every copy [B, EOT, K]."""
        n, gradient = self.spec.eot, self.spec.gradient
        streams = noise.copies(n)
        if isinstance(self.defense, Foreign):
            # Its draws are made for a whole batch: copies in one call would share them.
            keys = streams.keys.view(len(x), n, 2)
            return torch.stack([self.defense.logits(x, Noise(keys[:, i]), gradient=gradient) for i in range(n)], 1)
        copies = x.repeat_interleave(n, 0) if n > 1 else x
        return self.defense.logits(copies, streams, gradient=gradient, runs=self.spec.runs).view(len(x), n, -1)

    def train(self, mode: bool = True) -> AttackView:  # noqa: ARG002
        """Stay in evaluation mode: libraries switch modes around an attack."""
        return super().train(False)


@contextmanager
def attack_view(defense: Defense, spec: ViewSpec, *, seed: int, rows: int = 8192) -> Iterator[tuple[AttackView, Meter]]:
    """A view with frozen parameters (so that no `.grad` piles up), and the meter of its cost.

    The parameters' `requires_grad` flags are put back on leaving.
    """
    flags = [(p, p.requires_grad) for p in defense.parameters()]
    meter = Meter(defense.cost_modules())
    try:
        for p, _ in flags:
            p.requires_grad_(False)
        yield AttackView(defense, spec, seed=seed, rows=rows).to(device_of(defense)), meter
    finally:
        meter.detach()
        for p, flag in flags:
            p.requires_grad_(flag)


def _only_from_bad_images(x: Tensor, logits: Tensor) -> bool:
    return bool((logits.isfinite().all(1) | ~x.isfinite().flatten(1).all(1)).all())


def device_of(defense: Defense) -> torch.device:
    """Where a defense is: the device of its first parameter or buffer, else the CPU."""
    tensor = next(defense.parameters(), next(defense.buffers(), None))
    return torch.device("cpu") if tensor is None else tensor.device
