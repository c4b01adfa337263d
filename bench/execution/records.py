"""The columns of the draws table, from a verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from bench.evaluation.verdict import Draws
    from bench.execution.run_cell import Block
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
