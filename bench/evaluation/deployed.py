"""The verdict of a cell: draws of the deployed defense on its images, and their cost."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.evaluation.batching import BatchLimit, batch_limit
from bench.evaluation.cost import Cost, seconds_since
from bench.evaluation.devices import device_of
from bench.evaluation.meter import Meter
from bench.evaluation.sequential_verdict import sequential_verdict
from bench.evaluation.steadiness import judged_again
from bench.evaluation.verdict import Draws, verdict
from bench.spec.cell import Cell
from bench.stats.sequential import Decisions, Sequential
from defenses.core.defense import Defense
from defenses.utils.precision import multiplied_in


@dataclass(frozen=True, eq=False)
class DeployedVerdict:
    """The verdict on B images.

    Args:
        draws: made of every image, on the CPU.
        majority: decisions of the sequential rule; None: the cell has no rule.
        cost: of the draws and the decisions.
    """

    draws: Draws
    majority: Decisions | None
    cost: Cost

    @property
    def finite(self) -> Tensor:
        """Return bool [B]: all logits and scores of all draws are finite."""
        finite = self.draws.finite
        return finite if self.majority is None else finite & ~torch.from_numpy(self.majority.undecided)

    def columns(self, ok: Tensor) -> dict[str, Any]:
        """Return the columns of the sequential majority for the records; {} without a rule.

        Args:
            ok: bool [B]; NaN is stored for the other images.
        """
        if self.majority is None:
            return {}
        columns = {"majority_right": self.majority.right, "majority_draws": self.majority.drawn}
        return {name: np.where(ok.numpy(), values, np.nan).astype(np.float32) for name, values in columns.items()}


@multiplied_in("float32")  # of the sequential rule too
def deployed_verdict(cell: Cell, defense: Defense, x: Tensor, y: Tensor, indices: Tensor) -> DeployedVerdict:
    """Judge the images of a cell.

    Args:
        cell: its verdict, view and seed are used.
        defense: the loaded defense.
        x: images, float32 [B, C, H, W], on the CPU as all tensors here.
        y: labels, int64 [B].
        indices: dataset indices, int64 [B].

    Raises:
        AnswersChange: a user's model that counts as deterministic is not.
    """
    spec, x = cell.verdict, x.to(device_of(defense))
    meter = Meter(defense.cost_modules())
    begin = time.perf_counter()
    try:
        with batch_limit(defense) as memory:
            draws = verdict(
                defense,
                x,
                indices,
                draws=spec.draws,
                selection=spec.selection,
                seed=cell.seed,
                batch=spec.batch,
                memory=memory,
                known=cell.view.known,
            )
            scores = None if draws.scores is None else draws.scores.cpu()
            draws = Draws(draws.logits.cpu(), draws.rejected.cpu(), draws.held_out.cpu(), scores)
            majority = _majority(cell, defense, x, y, indices, draws, memory)
            cost = Cost(seconds_since(begin), meter.forwards, meter.backwards, rows=memory.limit)
            judged_again(defense, x, indices, draws, seed=cell.seed, batch=spec.batch, memory=memory)
    finally:
        meter.detach()
    return DeployedVerdict(draws, majority, cost)


def _majority(
    cell: Cell, defense: Defense, x: Tensor, y: Tensor, indices: Tensor, draws: Draws, memory: BatchLimit
) -> Decisions | None:
    """Return the decisions of the sequential rule, which continues from the held-out draws; None without a rule."""
    if cell.verdict.sequential is None:
        return None
    begun = torch.where(draws.rejected, -1, draws.predictions)[draws.held_out].T.contiguous().numpy()
    rule, batch = Sequential(*cell.verdict.sequential), cell.verdict.batch
    return sequential_verdict(defense, x, y, indices, rule, cell.seed, begun=begun, batch=batch, memory=memory)
