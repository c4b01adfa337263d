"""Batched queries of a defense: many images, each with its own number of copies and its own noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.evaluation.batching import BatchLimit, draws_for_batch, release_cached_memory
from bench.evaluation.chunked import piecewise
from bench.evaluation.verdict import known_noise
from bench.evaluation.view import NO_GRADIENT
from defenses.core.defense import UserModule
from defenses.core.detector import Guard
from defenses.core.noise import Noise


@dataclass(frozen=True)
class Answer:
    """Answer of a defense to a query.

    Args:
        logits: of all copies, [R, K].
        item: the image of every row, int64 [R].
        excess: of the detector's score over its threshold, in its scales, [R]; None: no detector was queried.
    """

    logits: Tensor
    item: Tensor
    excess: Tensor | None = None


Value = Callable[[Answer], Tensor]  # -> [n]


def _detached(answer: Answer) -> Answer:
    excess = None if answer.excess is None else answer.excess.detach()
    return Answer(answer.logits.detach(), answer.item, excess)


class Query:
    """Queries of the defense of a view.

    Copy j of an image draws stream j of the image's noise, whatever else is in the batch. A user-defined random module
    gets one copy of all images at a time, and draws for all of them together. Under a known seed every copy is the draw
    of the verdict; such a module then gets one image at a time, as in the verdict.

    Args:
        view: an `AttackView`: its defense, its count of queries and its memory are used, not its forward.
        runs: that a copy combines; None: the deployed number.
        rows: at most this many rows at once.
        guard: a detector that is queried too; None: no detector.

    Attributes:
        stands_for: number of copies that a deployed prediction combines.
        averages_logits: the deployed prediction averages their logits.
    """

    def __init__(self, view: Any, *, runs: int | None, rows: int, guard: Guard | None = None):
        self.view, self.defense, self.rows, self.guard = view, view.defense, rows, guard
        self.random_user_module = draws_for_batch(self.defense)
        self.runs = None if isinstance(self.defense, UserModule) else runs
        deployed: int = getattr(self.defense, "runs", 1)
        self.stands_for = max(1, deployed // (self.runs or deployed))
        self.averages_logits = self.stands_for > 1 and getattr(self.defense, "combine", "") == "logit-mean"

    def logits(self, x: Tensor, noise: Noise, copies: Tensor, mode: str) -> Answer:
        """Return the logits of all copies, without gradients.

        Args:
            x: images [n, C, H, W].
            noise: n streams.
            copies: of every image, int64 [n].
            mode: of the gradient; "blind" queries the bare classifier.
        """
        self.view.count_queries(len(x))
        with torch.no_grad():
            return self._answer(x.detach(), noise, copies, mode)

    def gradient(
        self, x: Tensor, noise: Noise, copies: Tensor, mode: str, value: Value
    ) -> tuple[Answer, Tensor, Tensor]:
        """Return (the answer, values [n], the gradient of their sum at x).

        Args:
            x: images [n, C, H, W].
            noise: n streams.
            copies: of every image, int64 [n].
            mode: of the gradient.
            value: function to differentiate.

        Raises:
            FloatingPointError: logits or gradient are not finite.
            RuntimeError: no graph leads from the logits to the images.
        """
        self.view.count_queries(len(x))
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            answer = self._answer(leaf, noise, copies, mode)
            values = value(answer)
            # Zeros in the place of none would leave the images unchanged, and the defense would appear robust.
            (gradient,) = (
                torch.autograd.grad(values.sum(), leaf, allow_unused=True) if values.requires_grad else (None,)
            )
            if gradient is None:
                raise RuntimeError(NO_GRADIENT)
        if not bool(torch.isfinite(gradient).all()):
            raise FloatingPointError("the gradient through the defense is not finite during the attack")
        return _detached(answer), values.detach(), gradient

    def _answer(self, x: Tensor, noise: Noise, copies: Tensor, mode: str) -> Answer:
        item = torch.arange(len(x), device=x.device).repeat_interleave(copies)
        first = copies.cumsum(0) - copies
        copy = torch.arange(len(item), device=x.device) - first[item]
        if self.view.spec.known:
            outputs = self._known_draw(x[item], mode)
        elif self.random_user_module:
            outputs = self._one_copy_at_a_time(x, noise, item, copy, mode)
        else:
            outputs = self._call(x[item], Noise(noise.keys[item]).child(copy), mode)
        if not bool(torch.isfinite(outputs.detach()).all()):
            raise FloatingPointError("the defense returned logits that are not finite during the attack")
        return Answer(outputs, item) if self.guard is None else Answer(outputs[:, :-1], item, outputs[:, -1])

    def _known_draw(self, x: Tensor, mode: str) -> Tensor:
        noise = known_noise(self.view.seed, len(x), x.device)
        if not self.random_user_module:
            return self._call(x, noise, mode)
        rows = zip(x.split(1), noise.keys.split(1), strict=True)
        return torch.cat([self._call(row, Noise(keys), mode) for row, keys in rows])

    def _one_copy_at_a_time(self, x: Tensor, noise: Noise, item: Tensor, copy: Tensor, mode: str) -> Tensor:
        parts, order = [], []
        for j in range(int(copy.max()) + 1):
            at = torch.nonzero(copy == j).squeeze(1)
            parts.append(self._call(x[item[at]], Noise(noise.keys[item[at]]).child(j), mode))
            order.append(at)
        return torch.cat(parts)[torch.cat(order).argsort()]

    def _outputs(self, mode: str, x: Tensor, noise: Noise) -> Tensor:
        """Return the logits, with the detector's excess as a further column."""
        logits: Tensor = self.defense.logits(x, noise, gradient=mode, runs=self.runs)
        return logits if self.guard is None else torch.cat([logits, self.guard.excess(x, noise)[:, None]], 1)

    def _call(self, x: Tensor, noise: Noise, mode: str) -> Tensor:
        """Return the outputs of one call, or of its pieces where memory has run out."""
        memory: BatchLimit = self.view.memory
        memory.asked = max(memory.asked, len(x))
        call = partial(self._outputs, mode)
        if memory.limit is None and (len(x) <= self.rows or self.random_user_module):
            try:
                logits: Tensor = call(x, noise)
                return logits
            except Exception as error:
                if not memory.ran_out(error, len(x)):
                    raise
            release_cached_memory()
        if memory.limit is None:
            memory = BatchLimit()
            memory.limit = self.rows
        return piecewise(call, x, noise, memory, redivide=not self.random_user_module)
