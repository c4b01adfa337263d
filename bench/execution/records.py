"""The images of a cell, and the columns of records and draws from its outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from bench.evaluation.cost import Cost
from bench.evaluation.deployed import DeployedVerdict
from bench.evaluation.verdict import Draws
from bench.spec.cell import Cell
from bench.spec.threat import in_box
from bench.store.parts import CellRecord
from defenses.data.dataset import Dataset, sha_of

_TOP_LOGITS = 10  # all logits are stored up to this many classes, else those of the top ones


@dataclass(frozen=True)
class Block:
    """The images of a cell.

    Args:
        x: images, float32 [B, C, H, W].
        y: labels, int64 [B].
        indices: positions in the split, int64 [B].
        shas: identity of each image.
    """

    x: Tensor
    y: Tensor
    indices: Tensor
    shas: tuple[str, ...]


def block_of(cell: Cell, data: Dataset, positions: list[int]) -> Block:
    """Return the block of a cell.

    Args:
        cell: names a range of the index list.
        data: the whole split.
        positions: the index list.
    """
    return block_at(data, positions[cell.data.start : cell.data.stop])


def block_at(data: Dataset, positions: list[int]) -> Block:
    """Return the images at some positions of a split as a block."""
    at = torch.tensor(positions, dtype=torch.int64)
    x, y = data.images(at), data.y[at]
    return Block(x, y, at, tuple(map(sha_of, x, y)))


@dataclass(frozen=True)
class Outcome:
    """The result of an attack and its verdicts.

    Args:
        cell: the cell.
        block: its images.
        target: target classes, int64 [B]; None: untargeted.
        x_adv: images that the attack returned, float32 [B, C, H, W].
        distances: by norm, distances of `x_adv` from the images, float64 [B].
        beyond: images outside the ball, bool [B].
        problems: per image, why it was not judged; "" where it was.
        deployed: verdicts of the deployed defense.
        cost: cost of the attack.
    """

    cell: Cell
    block: Block
    target: Tensor | None
    x_adv: Tensor
    distances: Mapping[str, Tensor]
    beyond: Tensor
    problems: list[str]
    deployed: DeployedVerdict
    cost: Cost

    def costs(self) -> CellRecord:
        """Return the costs of the attack and the verdicts, for the line of the cell."""
        attack, verdict = self.cost, self.deployed.cost
        return {
            "seconds_attack": attack.seconds,
            "forwards": attack.forwards,
            "backwards": attack.backwards,
            "queries": attack.queries,
            "seconds_verdict": verdict.seconds,
            "forwards_verdict": verdict.forwards,
            "backwards_verdict": verdict.backwards,
        }

    def records(self) -> dict[str, Any]:
        """Return the columns of the records table; images that were not judged have zero draws."""
        block, n, sizes = self.block, len(self.block.y), self.distances
        judged = self._judged
        target = torch.full_like(block.y, -1) if self.target is None else self.target
        in_ball = sizes[self.cell.threat.norm] <= float(self.cell.threat.eps) + self.cell.threat.tolerance
        per_image = {"queries": self.cost.queries, "forwards": self.cost.forwards, "backwards": self.cost.backwards}
        return {
            "cell": [self.cell.key] * n,
            "index": block.indices.numpy().astype(np.int32),
            "sha": [s[:16] for s in block.shas],
            "label": _small(block.y.numpy()),
            "target": _small(target.numpy()),
            **self._counts(judged),
            **{norm.lower(): sizes[norm].numpy().astype(np.float32) for norm in ("Linf", "L2", "L1", "L0")},
            "in_box": in_box(self.x_adv).numpy(),
            "in_ball": in_ball.numpy(),
            "finite": torch.isfinite(self.x_adv.flatten(1)).all(1).numpy(),
            "beyond": (self.beyond & judged).numpy(),
            **{name: np.full(n, total / n, np.float64) for name, total in per_image.items()},
            "seconds": np.full(n, self.cost.seconds / n, np.float64),
            **self.deployed.columns(judged),
            "status": ["error" if p else "ok" for p in self.problems],
            "error": self.problems,
        }

    def draws(self) -> dict[str, Any]:
        """Return the columns of the draws table."""
        return draw_columns(self.cell, self.block, self.deployed.draws, self.problems)

    @property
    def _judged(self) -> Tensor:
        """Bool [B]: the image was judged."""
        return torch.tensor([not p for p in self.problems])

    def _counts(self, judged: Tensor) -> dict[str, object]:
        """Return the columns that count or average over draws."""
        draws, y = self.deployed.draws, self.block.y
        answered = ~draws.rejected & judged
        correct = (draws.predictions == y) & answered
        hits = torch.zeros_like(correct) if self.target is None else (draws.predictions == self.target) & answered
        held_out = draws.held_out
        selection = ~held_out if (~held_out).any() else held_out
        return {
            "correct": _int32(correct[held_out].sum(0)),
            "draws": _int32(judged * int(held_out.sum())),
            "correct_sel": _int32(correct[selection].sum(0)),
            "draws_sel": _int32(judged * int(selection.sum())),
            "hits": _int32(hits[held_out].sum(0)),
            "hits_sel": _int32(hits[selection].sum(0)),
            "rejected": _int32(draws.rejected[held_out].sum(0) * judged),
            "margin": draws.margins(y)[held_out].mean(0).numpy(),
        }


def _small(values: Any) -> Any:
    """Return whole numbers as int16, or int32 where one is larger."""
    return values.astype(np.int16 if values.max(initial=0) <= np.iinfo(np.int16).max else np.int32)


def _int32(counts: Tensor) -> object:
    return counts.numpy().astype(np.int32)


def draw_columns(cell: Cell, block: Block, draws: Draws, problems: list[str]) -> dict[str, Any]:
    """Return the columns of the draws table, a row per draw and judged image.

    There is a column "score" where the defense has a detector.

    Args:
        cell: the cell.
        block: its images.
        draws: draws of the deployed defense on all images.
        problems: per image, why it was not judged; "" where it was.
    """
    ok = torch.tensor([not p for p in problems])
    count, n = draws.held_out.shape[0], int(ok.sum())
    logits = draws.logits[:, ok]
    logits = logits - logits.amax(-1, keepdim=True)  # the largest is 0
    values, classes = logits.topk(min(_TOP_LOGITS, logits.shape[-1]), -1)
    if logits.shape[-1] <= _TOP_LOGITS:
        values = logits
    half = values.half()
    stored = half if half.isfinite().all() else values  # half precision ends at 65,504
    flat = pa.array(stored.flatten().numpy())
    columns = {
        "cell": pa.array([cell.key] * (count * n), pa.string()).dictionary_encode(),
        "index": np.tile(block.indices[ok].numpy().astype(np.int32), count),
        "draw": np.repeat(_small(np.arange(count)), n),
        "held_out": np.repeat(draws.held_out.numpy(), n),
        "pred": _small(draws.predictions[:, ok].flatten().numpy()),
        "margin": draws.margins(block.y)[:, ok].flatten().numpy(),
        "rejected": draws.rejected[:, ok].flatten().numpy(),
        "logits": pa.FixedSizeListArray.from_arrays(flat, values.shape[-1]),
    }
    if logits.shape[-1] > _TOP_LOGITS:
        flat_classes = pa.array(_small(classes.flatten().numpy()))
        columns["classes"] = pa.FixedSizeListArray.from_arrays(flat_classes, values.shape[-1])
    if draws.scores is not None:
        columns["score"] = draws.scores[:, ok].flatten().numpy()
    return columns
