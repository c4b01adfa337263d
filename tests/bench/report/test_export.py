"""`purebench export` writes the frames as other programs read them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from boards import purebench_here
from fake_board import HOSTILE
from site_pages import hostile

import bench
from bench.report.export import FRAMES, export
from defenses.utils.errors import UserError

RESULTS = Path(__file__).parents[3] / "results/digits-linf"


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_files_hold_the_frames(form, tmp_path):
    files = export(RESULTS, tmp_path / "e", form=form)
    names = ["results", "cells", "worst_per_image", "summary", "leaderboard"]
    assert [file.name for file in files] == [*(f"{name}.{form}" for name in names), "columns.csv"]
    read = {name: getattr(pd, f"read_{form}")(tmp_path / f"e/{name}.{form}") for name in names}
    for name, frame in read.items():
        wanted = FRAMES[name](RESULTS)
        assert list(frame) == list(wanted)
        assert len(frame) == len(wanted)
        assert np.allclose(frame["eps_value"], 0.2)
        assert frame["defense"].tolist() == wanted["defense"].tolist()
    assert np.allclose(read["summary"]["robust_mean"], bench.summary(RESULTS)["robust_mean"])
    described = pd.read_csv(tmp_path / "e/columns.csv")
    assert set(described["frame"].str.removeprefix("load_")) >= set(names)


def test_draws_with_their_logits(tmp_path):
    small = RESULTS.with_name("leaky-energy")
    export(small, tmp_path, only=["draws"])
    draws, wanted = pd.read_parquet(tmp_path / "draws.parquet"), bench.load_draws(small)
    assert np.allclose(draws["logits"].iloc[7], wanted["logits"].iloc[7])
    assert len(draws) == len(wanted)


def test_lists_are_json_in_csv(tmp_path):
    found = export(RESULTS, tmp_path, form="csv", only=["cells"])
    cells = pd.read_csv(found[0])
    lists = [json.loads(text) for text in cells["warnings"].dropna()]
    assert len(lists) == len(cells)
    assert all(isinstance(value, list) for value in lists)


def test_other_programs_read_the_file(tmp_path):
    """Arrow's own reader finds plain columns: text, numbers, flags; no dictionary of indices, no pandas object."""
    import pyarrow.parquet as pq

    export(RESULTS, tmp_path, only=["results"])
    schema = pq.read_schema(tmp_path / "results.parquet")
    assert str(schema.field("eps_value").type) == "double"
    assert str(schema.field("defense").type) in ("string", "large_string")
    assert str(schema.field("image").type) == "int32"


def test_bad_input_is_one_line(tmp_path):
    with pytest.raises(UserError, match='unknown frame "draw"; did you mean draws'):
        export(RESULTS, tmp_path / "e", only=["draw"])
    with pytest.raises(UserError, match='format is "xlsx"'):
        export(RESULTS, tmp_path / "e", form="xlsx")
    assert not (tmp_path / "e").exists()
    told = purebench_here("export", tmp_path, "--out", tmp_path / "e")
    assert (told.returncode, told.stderr.count("\n"), (tmp_path / "e").exists()) == (2, 1, False)
    told = purebench_here("export", RESULTS.parent / "corruptions-digits", "--out", tmp_path / "e")
    assert "read it with bench.load_corruptions" in told.stderr
    told = purebench_here("export", RESULTS, "--csv", "--only", "leaderboard", "--out", tmp_path / "e")
    assert told.stdout == f"leaderboard.csv, columns.csv in {tmp_path / 'e'}\n"


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_hostile_names_do_no_harm(form, tmp_path):
    """In Parquet they stay what they are; a spreadsheet or terminal executes none of those in a CSV."""
    folder = hostile(tmp_path / "hostile")
    told = purebench_here("export", folder, f"--{form}", "--out", tmp_path / "e")
    assert (told.returncode, told.stderr) == (0, "")
    names = ["results", "cells", "worst_per_image", "summary", "leaderboard"]
    written = [f"{name}.{form}" for name in names] + ["columns.csv"]
    assert sorted(
        p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if "hostile" not in p.parts
    ) == sorted(["e", *(f"e/{name}" for name in written)])
    for name in names:
        file, wanted = tmp_path / "e" / f"{name}.{form}", FRAMES[name](folder)
        read = getattr(pd, f"read_{form}")(file)
        assert len(read) == len(wanted) > 0
        texts = [str(v) for c in ("defense", "attack", "worst_attack") if c in read for v in read[c].dropna()]
        if form == "parquet":
            assert read["defense"].tolist() == wanted["defense"].tolist()
            assert {HOSTILE, "../../etc/passwd", "x" * 200, "=1+1"} <= {*texts}
            continue
        assert file.read_text().replace("\n", "").isprintable()
        assert not [text for text in texts if text.startswith(("=", "+", "@"))]
        assert {"'=1+1", "../../etc/passwd", "x" * 200} <= {*texts}
        assert read["defense"].nunique() == wanted["defense"].nunique()
