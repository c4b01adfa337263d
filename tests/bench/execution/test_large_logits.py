"""Test how logits whose gaps exceed half precision are stored, merged and averaged."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from fake_board import line, result, row, write

from bench import load_draws, summary
from bench.evaluation.verdict import Draws
from bench.execution.records import draw_columns
from bench.store.folder import Store

DRAWS = ([0.0, -7e4], [-9e4, 0.0], [0.0, -7e4])  # means -3e4 and -4.7e4: the first class


def stored(logits, images=6):
    """Return the column as a run stores it, with the same draws on every image."""
    values = torch.tensor(logits)[:, None].expand(-1, images, -1)
    draws = Draws(values, torch.zeros(values.shape[:2], dtype=torch.bool), torch.ones(len(values), dtype=torch.bool))
    block = SimpleNamespace(indices=torch.arange(images), y=torch.zeros(images, dtype=torch.int64))
    return draw_columns(SimpleNamespace(key="k"), block, draws, [""] * images)["logits"]


def judged(attack, logits):
    """Return a cell with three chosen-out draws, two of them correct."""
    planned = line("noisy", attack, stochastic=True, draws=3)
    cell = result(planned, [2] * 6, [0] * 6)
    cell.records["draws"] = np.full(6, 3, np.int32)
    chosen = cell.draws["held_out"] & (cell.draws["draw"] < 7)
    columns = {name: column for name, column in cell.draws.items() if name not in ("cell", "logits")}
    columns = {name: column[chosen] for name, column in columns.items()}
    columns["cell"] = pa.array([planned["key"]] * 18, pa.string()).dictionary_encode()
    cell.draws.clear()
    cell.draws.update(columns | {"logits": logits})
    return cell


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_the_mean_logit_holds_at_any_scale(tmp_path, scale):
    logits = stored([[scale * value for value in draw] for draw in DRAWS])
    assert logits.type.value_type == (pa.float16() if scale < 1 else pa.float32())
    folder = write(tmp_path, [judged("apgd", logits)])
    assert row(summary(folder), "noisy", "apgd").mean_logit == 1


def test_a_part_of_large_logits_is_merged_with_others(tmp_path):
    small = [[0.0, -7.0], [-9.0, 0.0], [0.0, -7.0]]
    results = [judged("apgd", stored(small)), judged("square", stored(DRAWS))]
    before = summary(write(tmp_path, results))
    Store(tmp_path).compact([json.loads(text) for text in (tmp_path / "plan.jsonl").read_text().splitlines()])
    assert len(list((tmp_path / "parts").iterdir())) == 1
    assert summary(tmp_path).equals(before)
    assert np.stack(load_draws(tmp_path)["logits"]).min() == -9e4


def test_logits_that_an_older_version_lost_tell_nothing(tmp_path):
    half = np.where(np.array(DRAWS) < -65504, -np.inf, DRAWS).astype(np.float16).repeat(6, 0)
    lost = pa.FixedSizeListArray.from_arrays(pa.array(half.ravel()), 2)
    found = row(summary(write(tmp_path, [judged("apgd", lost)])), "noisy", "apgd")
    assert np.isnan(found.mean_logit)
    assert found.majority == 1
