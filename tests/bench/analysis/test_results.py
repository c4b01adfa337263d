"""Loading results folders, whole and damaged."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from fake_board import HELD, SEL, deterministic, failed, line, result, row, stochastic, write

from bench import load_cells, load_draws, load_results, summary
from bench.analysis.results import read_results
from bench.analysis.summary import WORST
from bench.report.tables import write_tables
from bench.store.folder import Store
from defenses.utils.errors import UserError


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "board", deterministic() + stochastic())


def test_load_results_is_tidy(folder):
    df = load_results(folder)
    assert len(df) == 8 * 6
    assert not df.duplicated(["defense", "attack", "view", "image"]).any()
    one = df[(df.defense == "noisy") & (df.attack == "square")].set_index("image")
    assert one.accuracy.tolist() == [c / 15 for c in (12, 3, 9, 6, 8, 0)]
    assert one.clean.tolist() == [c / 15 for c in (15, 15, 15, 15, 12, 3)]
    assert one.null.tolist() == [c / 15 for c in (15, 15, 15, 12, 12, 3)]
    assert one.succeeded.tolist() == [False, True, False, True, False, False]
    assert one.success.tolist() == pytest.approx([1 - c / 15 for c in (12, 3, 9, 6, 8, 0)])


def test_load_draws_and_cells(folder):
    draws = load_draws(folder)
    one = draws[(draws.defense == "noisy") & (draws.attack == "apgd") & (draws["image"] == 1)]
    assert (one.held_out.sum(), (~one.held_out).sum()) == (HELD, SEL)
    assert (one[one.held_out].pred == 0).sum() == 9
    assert len(one.logits.iloc[0]) == 3
    cells = load_cells(folder)
    assert cells.status.tolist() == ["ok"] * 8
    assert cells.defense.tolist() == ["plain"] * 4 + ["noisy"] * 4
    assert cells.forwards.tolist() == [60] * 8


def test_compacted_parts_read_the_same(folder):
    before, table = load_results(folder), summary(folder)
    plan = [json.loads(x) for x in (folder / "plan.jsonl").read_text().splitlines()]
    Store(folder).compact(plan)
    assert all(p.name.startswith("all-") for p in (folder / "parts").iterdir())
    pd.testing.assert_frame_equal(before, load_results(folder))
    pd.testing.assert_frame_equal(table, summary(folder))


def test_order_does_not_depend_on_who_finished_first(tmp_path):
    results = deterministic() + stochastic()
    there = write(tmp_path / "a", results)
    back = write(tmp_path / "b", results[::-1], [r.line for r in results])
    pd.testing.assert_frame_equal(summary(there), summary(back))


@pytest.mark.parametrize("file", ["records.parquet", "draws.parquet"])
@pytest.mark.parametrize("damage", [b"", b"PAR1 nothing", None])
def test_damaged_parquet_is_named(folder, file, damage):
    part = sorted((folder / "parts").iterdir())[0]
    (part / file).unlink() if damage is None else (part / file).write_bytes(damage)
    with pytest.raises(UserError, match="run the board again") as error:
        summary(folder)
    assert str(part / file) in str(error.value)
    assert "\n" not in str(error.value)


def test_truncated_parquet_and_lines_are_named(folder):
    part = sorted((folder / "parts").iterdir())[0]
    path = part / "records.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot be read"):
        load_results(folder)
    (part / "cells.jsonl").write_text("{")
    with pytest.raises(UserError, match=r"cells\.jsonl is damaged"):
        load_cells(folder)


def test_cells_that_failed_are_visible(tmp_path):
    broken = [failed(line("plain", "ead"), "unsupported", "needs L1"), failed(line("plain", "boom"), "error", "Oops")]
    results = [*deterministic(), *broken]
    folder = write(tmp_path / "a", results, [results[i].line for i in (0, 1, 4, 2, 3, 5)])
    frame = load_results(folder)
    ead = frame[frame.attack == "ead"]
    assert ead["image"].tolist() == list(range(6))
    shown = ead[["status", "error", "draws", "label"]].drop_duplicates()
    assert shown.values.tolist() == [["unsupported", "needs L1", 0, 0]]
    assert ead.accuracy.isna().all()
    assert ead.clean.tolist() == [1, 1, 1, 1, 1, 0]
    assert not ead.succeeded.any()
    assert list(dict.fromkeys(frame.attack)) == ["none", "uniform", "ead", "apgd", "square", "boom"]
    pd.testing.assert_series_equal(frame.dtypes, load_results(write(tmp_path / "b", deterministic())).dtypes)
    assert len(read_results(folder).records) == 24


def test_failed_cells_of_unknown_images_have_one_row(tmp_path):
    frame = load_results(write(tmp_path, [failed(line("plain", "boom"), "error", "Oops")]))
    assert frame[["image", "draws", "status", "error"]].values.tolist() == [[-1, 0, "error", "Oops"]]
    assert frame.accuracy.isna().all()


def test_no_results(tmp_path):
    with pytest.raises(UserError, match="holds no results"):
        load_results(tmp_path)
    empty = write(tmp_path / "empty", [], [line("plain", "apgd")])
    assert load_results(empty).empty
    assert load_draws(empty).empty
    frame = summary(empty)
    assert frame.status.tolist() == ["not run", "not run"]
    assert frame["strict_rank"].isna().all()
    write_tables(empty)


def test_cells_that_the_plan_forgot_are_left_out(tmp_path):
    results = deterministic()
    folder = write(tmp_path, [*results, result(line("plain", "old"), [0] * 6)], [r.line for r in results])
    assert "old" not in set(load_results(folder).attack)
    assert row(summary(folder), "plain", WORST).robust_mean == pytest.approx(2 / 6)


# Large files


def _rewritten(part, name, change, **options):
    """Write a Parquet file of a part anew, with its checksum."""
    table = change(pq.read_table(part / name))
    pq.write_table(table, part / name, **options)
    sums = json.loads((part / "checksums.json").read_text())
    sums[name] = hashlib.sha256((part / name).read_bytes()).hexdigest()
    (part / "checksums.json").write_text(json.dumps(sums))


@pytest.mark.parametrize("rows", [1, 7, 50, 10_000])
def test_draws_are_read_by_row_groups_wherever_these_end(folder, rows):
    before = summary(folder)
    Store(folder).compact([json.loads(x) for x in (folder / "plan.jsonl").read_text().splitlines()])
    for part in (folder / "parts").iterdir():
        _rewritten(part, "draws.parquet", lambda table: table, row_group_size=rows)
        stored = pq.ParquetFile(part / "draws.parquet").metadata
        assert stored.num_row_groups == -(-stored.num_rows // rows)
    pd.testing.assert_frame_equal(before, summary(folder))


def test_rows_of_a_cell_that_lie_apart_are_refused(folder):
    Store(folder).compact([json.loads(x) for x in (folder / "plan.jsonl").read_text().splitlines()])
    part = next(p for p in (folder / "parts").iterdir() if "noisy" in p.name)
    _rewritten(part, "draws.parquet", lambda t: t.take(np.arange(len(t)).reshape(-1, 2).T.ravel()), row_group_size=9)
    with pytest.raises(UserError, match="rows of a cell lie apart; run the board again"):
        summary(folder)


def test_a_merged_part_and_cells_that_were_run_again_merge_in_table_order(folder):
    plan = [json.loads(x) for x in (folder / "plan.jsonl").read_text().splitlines()]
    store, before = Store(folder), load_results(folder)
    store.compact(plan)
    again = stochastic()[2]
    store.save(again)
    store.compact(plan)
    assert sorted(p.name[:8] for p in (folder / "parts").iterdir()) == ["all-nois", "all-plai"]
    pd.testing.assert_frame_equal(before, load_results(folder))
    part = next(p for p in (folder / "parts").iterdir() if "noisy" in p.name)
    cells = pq.read_table(part / "draws.parquet")["cell"].to_pylist()
    assert list(dict.fromkeys(cells)) == [line["key"] for line in plan if line["defense"] == "noisy"]


def test_a_defense_without_any_verdict_is_merged(tmp_path):
    results = [result(line("plain", "apgd"), [1] * 6, problems=["the attack left the box [0, 1]"] * 6)]
    folder = write(tmp_path, results)
    before = load_results(folder)
    Store(folder).compact([r.line for r in results])
    assert [p.name[:4] for p in (folder / "parts").iterdir()] == ["all-"]
    pd.testing.assert_frame_equal(before, load_results(folder))
    assert load_draws(folder).empty
