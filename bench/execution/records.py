"""The columns of the draws table, from a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bench.evaluation.cost import Cost
from bench.evaluation.deployed import Deployed
from bench.spec.cell import Cell
from bench.spec.threat import distances, in_box
from bench.store.folder import CellResult
from defenses.data.dataset import Dataset

if TYPE_CHECKING:
    from bench.evaluation.verdict import Draws
    from bench.spec.cell import Cell

_TOP_LOGITS = 10  # all logits are stored up to this many classes, else those of the top ones


def draw_columns(cell: Cell, block: Block, draws: Draws, problems: list[str]) -> dict[str, Any]:
    """Columns of the draws table: one row per image and draw, images that could not be judged left out.

    There is a column "score" where the defense has a detector.
    """
    import pyarrow as pa

    ok = torch.tensor([not p for p in problems])
    count, n = draws.held_out.shape[0], int(ok.sum())
    kept = draws.logits[:, ok]
    kept = kept - kept.amax(-1, keepdim=True)  # the largest is 0
    values, classes = kept.topk(min(_TOP_LOGITS, kept.shape[-1]), -1)
    if kept.shape[-1] <= _TOP_LOGITS:
        values = kept
    half = values.half()
    stored = half if half.isfinite().all() else values  # half precision ends at 65,504
    flat = pa.array(stored.flatten().numpy())
    columns = {
        "cell": pa.array([cell.key] * (count * n), pa.string()).dictionary_encode(),
        "index": np.tile(block.indices[ok].numpy().astype(np.int32), count),
        "draw": np.repeat(np.arange(count, dtype=np.int16), n),
        "held_out": np.repeat(draws.held_out.numpy(), n),
        "pred": draws.predictions[:, ok].flatten().numpy().astype(np.int16),
        "margin": draws.margins(block.y)[:, ok].flatten().numpy(),
        "rejected": draws.rejected[:, ok].flatten().numpy(),
        "logits": pa.FixedSizeListArray.from_arrays(flat, values.shape[-1]),
    }
    if kept.shape[-1] > _TOP_LOGITS:
        flat_classes = pa.array(classes.flatten().numpy().astype(np.int16))
        columns["classes"] = pa.FixedSizeListArray.from_arrays(flat_classes, values.shape[-1])
    if draws.scores is not None:
        columns["score"] = draws.scores[:, ok].flatten().numpy()
    return columns


@dataclass(frozen=True)
class Block:
    """The images of a cell: x float32 [B, C, H, W], y int64 [B], dataset indices int64 [B], sha per image."""

    x: Tensor
    y: Tensor
    indices: Tensor
    shas: tuple[str, ...]


def block_of(cell: Cell, data: Dataset, positions: list[int]) -> Block:
    """The block of a cell.

    Args:
        cell: says which positions of the index list.
        data: the whole split.
        positions: the index list.
    """
    chosen = positions[cell.data.start : cell.data.stop]
    at = torch.tensor(chosen, dtype=torch.int64)
    return Block(data.x[at], data.y[at], at, tuple(data.sha(i) for i in chosen))


def _records(
    cell: Cell,
    block: Block,
    target: Tensor | None,
    x_adv: Tensor,
    beyond: Tensor,
    problems: list[str],
    said: Deployed,
    cost: Cost,
) -> dict[str, Any]:
    """Columns of the records table; images that could not be judged have zero draws."""
    n = len(block.y)
    ok, draws = torch.tensor([not p for p in problems]), said.draws
    correct = (draws.predictions == block.y) & ~draws.rejected & ok
    hits = torch.zeros_like(correct) if target is None else (draws.predictions == target) & ~draws.rejected & ok
    held, chosen = draws.held_out, ~draws.held_out if (~draws.held_out).any() else draws.held_out
    size = distances(block.x, x_adv)
    per_image = {"queries": cost.queries, "forwards": cost.forwards, "backwards": cost.backwards}
    return {
        "cell": [cell.key] * n,
        "index": block.indices.numpy().astype(np.int32),
        "sha": [s[:16] for s in block.shas],
        "label": block.y.numpy().astype(np.int16),
        "target": (torch.full_like(block.y, -1) if target is None else target).numpy().astype(np.int16),
        "correct": correct[held].sum(0).numpy().astype(np.int32),
        "draws": (ok * int(held.sum())).numpy().astype(np.int32),
        "correct_sel": correct[chosen].sum(0).numpy().astype(np.int32),
        "draws_sel": (ok * int(chosen.sum())).numpy().astype(np.int32),
        "hits": hits[held].sum(0).numpy().astype(np.int32),
        "hits_sel": hits[chosen].sum(0).numpy().astype(np.int32),
        "rejected": (draws.rejected[held].sum(0) * ok).numpy().astype(np.int32),
        "margin": draws.margins(block.y)[held].mean(0).numpy(),
        **{norm.lower(): size[norm].numpy().astype(np.float32) for norm in ("Linf", "L2", "L1", "L0")},
        "in_box": in_box(x_adv).numpy(),
        "in_ball": (size[cell.threat.norm] <= float(cell.threat.eps) + cell.threat.tolerance).numpy(),
        "finite": torch.isfinite(x_adv.flatten(1)).all(1).numpy(),
        "beyond": (beyond & ok).numpy(),
        **{name: np.full(n, total / n, np.float64) for name, total in per_image.items()},
        "seconds": np.full(n, cost.seconds / n, np.float64),
        **said.columns(ok),
        "status": ["error" if p else "ok" for p in problems],
        "error": problems,
    }


def failure(cell: Cell, message: str, trace: str | None) -> CellResult:
    """The record of a cell that went wrong.

    Args:
        cell: which.
        message: one line for tables.
        trace: its traceback, where there is one.
    """
    line = {"status": "error", "error": message, "identity": cell.identity(), "traceback": trace}
    return CellResult(cell.columns() | line)
