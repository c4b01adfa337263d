"""Answers of a user's model that change between calls, seen while it is attacked and judged."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.evaluation.batching import BatchLimit
from bench.evaluation.devices import device_of
from bench.evaluation.model_checks import same_answers, user_code
from bench.evaluation.verdict import Draws, verdict
from defenses.core.defense import Defense
from defenses.core.noise import Noise


class AnswersChange(Exception):
    """Different logits of a model for the same images under the same noise."""


def judged_again(
    defense: Defense, x: Tensor, indices: Tensor, draws: Draws, *, seed: int, batch: int, memory: BatchLimit
) -> None:
    """Take the verdict of a user's deterministic model a second time, and compare; it is no part of the cost.

    Args:
        defense: the defense.
        x: the judged images, on the device of the defense.
        indices: dataset indices, int64 [B].
        draws: the first verdict, on the CPU.
        seed: see `verdict`.
        batch: see `verdict`.
        memory: see `verdict`.

    Raises:
        AnswersChange: the two differ.
    """
    if defense.stochastic or not user_code(defense):
        return
    again = verdict(defense, x, indices, draws=1, selection=0, seed=seed, batch=batch, memory=memory)
    if not same_answers(draws.logits, again.logits.cpu()):
        raise AnswersChange(
            "two verdicts of the same images differ: the model is random; declare it: stochastic = true in a board, "
            "--stochastic on the command line"
        )


_IMAGES = 2  # of a reference


class Reference:
    """Answers of a user's model on two images when it is loaded, to which later ones are compared.

    Args:
        defense: the defense.
        x: images, float32 [B, C, H, W].
    """

    def __init__(self, defense: Defense, x: Tensor):
        self._x = x[:_IMAGES].to(device_of(defense)) if user_code(defense) else None
        try:
            self._first = self._answers(defense)
        except Exception:  # the checks of the model name the problem
            self._first = None

    def _answers(self, defense: Defense) -> Tensor | None:
        if self._x is None:
            return None
        with torch.no_grad():
            return defense.logits(self._x, Noise.of(0, len(self._x), self._x.device)).float().cpu()

    def problem(self, defense: Defense) -> str:
        """Return what is wrong if the answers are others now, else ""."""
        if self._first is None or same_answers(self._first, self._answers(defense)):  # type: ignore[arg-type]
            return ""
        return (
            "the answers of the model on the same images changed while it was attacked and judged: it is random "
            "(declare it: stochastic = true in a board, --stochastic on the command line) or counts its queries"
        )
