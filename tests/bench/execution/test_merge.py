"""Test that merged folders are those of one machine, and that nothing is written where they disagree."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from boards import BOARD, ROOT, purebench, purebench_here, write_board
from fake_board import HOSTILE, deterministic, failed, recorded, stochastic

from bench import load_audits, load_draws, load_results
from bench.board.load import load_board
from bench.evaluation.certificates import stored as certificates
from bench.execution.options import Options
from bench.execution.run_board import run_board
from bench.store.folder import Store
from bench.store.manifest import read_manifest, update_manifest
from bench.store.parts import sha256

PLAN = [r.line for r in (*deterministic(), *stochastic())]


def folder(path, results, run="a", started="2026-01-01T00:00:00Z", plan=PLAN, **facts):
    """A results folder of a board of two defenses, with some of its cells."""
    return recorded(path, results, plan=plan, run=run, started=started, **facts)


def halves(tmp_path, **second):
    a = folder(tmp_path / "a", deterministic())
    return a, folder(tmp_path / "b", stochastic(), "b", "2026-01-02T00:00:00Z", **second)


def merge(out, *folders):
    return purebench_here("merge", *folders, "--out", out)


def tree(path):
    return {p.relative_to(path): p.read_bytes() for p in path.rglob("*") if p.is_file() and p.name != ".tables-stamp"}


def same_answers(a: Path, b: Path):
    pd.testing.assert_frame_equal(*(load_results(f).drop(columns="seconds") for f in (a, b)))
    one, other = load_draws(a), load_draws(b)
    pd.testing.assert_frame_equal(one.drop(columns="logits"), other.drop(columns="logits"))
    assert all((x == y).all() for x, y in zip(one["logits"], other["logits"], strict=True))


def test_two_machines_are_one(tmp_path):
    """A board run whole, and its defenses in two folders that are merged."""
    board = load_board(write_board(tmp_path, BOARD.replace("first-60", "first-20")))
    assert run_board(board, tmp_path / "whole", Options(quiet=True, workers=0)) == []
    for name in ("linear", "noisy"):
        assert run_board(board, tmp_path / name, Options(quiet=True, workers=0, defenses=(name,))) == []
    done = merge(tmp_path / "both", tmp_path / "noisy", tmp_path / "linear")
    assert (done.returncode, done.stdout) == (0, f"8 cells of 2 folders: {tmp_path / 'both'}\n")
    same_answers(tmp_path / "whole", tmp_path / "both")
    assert (tmp_path / "whole/plan.jsonl").read_bytes() == (tmp_path / "both/plan.jsonl").read_bytes()
    assert len(list((tmp_path / "both/parts").iterdir())) == 2
    runs = [read_manifest(tmp_path / name)["runs"][0] for name in ("linear", "noisy")]
    runs.sort(key=lambda run: (run["started"], run["id"]))  # both may have begun in one second
    assert [r["id"] for r in read_manifest(tmp_path / "both")["runs"]] == [run["id"] for run in runs]
    both, whole = (read_manifest(tmp_path / f) for f in ("both", "whole"))
    assert {k: v for k, v in both.items() if k not in ("runs", "sum")} == {
        k: v for k, v in whole.items() if k not in ("runs", "sum")
    }
    assert certificates.read(tmp_path / "both").keys() == certificates.read(tmp_path / "whole").keys()
    assert run_board(board, tmp_path / "both", Options(quiet=True, workers=0)) == []  # nothing is left to run
    assert len(read_manifest(tmp_path / "both")["runs"]) == 2
    assert purebench_here("table", tmp_path / "both").returncode == 0


def test_the_order_of_the_folders_changes_no_byte(tmp_path):
    a, b = halves(tmp_path)
    for name, folders in {"ab": (a, b), "ba": (b, a), "aab": (a, a, b), "abab": (a, b, a, b)}.items():
        assert merge(tmp_path / name, *folders).returncode == 0
    assert tree(tmp_path / "ab") == tree(tmp_path / "ba") == tree(tmp_path / "aab") == tree(tmp_path / "abab")
    assert merge(tmp_path / "again", tmp_path / "ab", a).returncode == 0
    assert tree(tmp_path / "ab") == tree(tmp_path / "again")
    assert not list(tmp_path.glob(".*"))
    assert not (tmp_path / "ab/.locks").exists()


def test_what_both_have_stands_once_and_failures_give_way(tmp_path):
    results = deterministic()
    a = folder(tmp_path / "a", [*results[:3], failed(results[3].line, "error", "out of luck")], plan=PLAN[:4])
    b = folder(tmp_path / "b", deterministic()[1:], "b", "2026-01-02T00:00:00Z", plan=PLAN[:4])
    shutil.rmtree(b / f"parts/cell-{results[2].line['key']}")
    done = merge(tmp_path / "m", a, b)
    assert done.stdout == f"4 cells of 2 folders, 2 of them in more than one: {tmp_path / 'm'}\n"
    frame = load_results(tmp_path / "m")
    assert set(frame["status"]) == {"ok"}
    assert len(frame) == 24
    only = folder(tmp_path / "only", [failed(results[3].line, "unsupported", "no gradient")], plan=PLAN[:4])
    assert "3 cells of the board not run" in merge(tmp_path / "two", only, only).stdout
    assert load_results(tmp_path / "two")["status"].tolist()[-1] == "unsupported"


def spoil(path, name, change):
    """Change a file of the first part that has it, and its checksum."""
    part = sorted(p.parent for p in path.glob(f"parts/*/{name}"))[0]
    change(part / name)
    sums = json.loads((part / "checksums.json").read_text()) | {name: sha256(part / name)}
    (part / "checksums.json").write_text(json.dumps(sums))
    return part


def columns(**changes):
    def change(file):
        table = pq.read_table(file)
        for name, value in changes.items():
            values = table[name].to_numpy().copy()
            values[2] = value
            table = table.set_column(table.column_names.index(name), name, [values])
        pq.write_table(table, file)

    return change


def image(file):
    from safetensors.numpy import load_file, save_file

    arrays = {key: x.copy() for key, x in load_file(file).items()}
    next(iter(arrays.values()))[2, 0, 0, 0] = np.float32(1e-7)
    save_file(arrays, file)


@pytest.mark.parametrize(
    ("name", "change", "agree"),
    [
        ("records.parquet", columns(seconds=99.0), True),
        ("records.parquet", columns(correct=0, margin=-1.0), False),
        ("records.parquet", columns(margin=np.float32(1e-7)), False),
        ("draws.parquet", columns(pred=2), False),
        ("adversarial.safetensors", image, False),
    ],
    ids=["time", "verdict", "last bit", "draw", "image"],
)
def test_the_same_key_has_the_same_bits(tmp_path, name, change, agree):
    a = folder(tmp_path / "a", deterministic(), plan=PLAN[:4])
    b = folder(tmp_path / "b", deterministic(), "b", plan=PLAN[:4])
    part = spoil(b, name, change)
    assert merge(tmp_path / "same", a, a).returncode == 0
    done = merge(tmp_path / "m", a, b)
    assert done.returncode == (0 if agree else 2)
    if not agree:
        bad = next(r.line for r in deterministic() if part.name.endswith(r.line["key"]))
        assert "1 cell of the same key differ" in done.stderr
        assert f"plain | {bad['attack']} | exact | Linf 1/5 | images 0-5" in done.stderr
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / "m").exists()
        assert not list(tmp_path.glob(".*"))


def test_other_boards_are_told_apart(tmp_path):
    a, b = halves(tmp_path)
    short = folder(tmp_path / "short", stochastic(), plan=PLAN[4:])
    other = folder(tmp_path / "other", deterministic(), board="other")
    labels = folder(tmp_path / "labels", deterministic(), plan=[p | {"budget": "reduced"} for p in PLAN])
    order = folder(tmp_path / "order", deterministic(), plan=PLAN[::-1])
    title = folder(tmp_path / "title", deterministic(), title="Another")
    expected = {
        short: "4 cells only in",
        other: 'holds results of the board "fake"',
        labels: '"budget" of plain | none | exact | Linf 1/5 | images 0-5 is',
        order: "their cells are in another order",
        title: '"title" of their manifest.json differs',
    }
    for wrong, text in expected.items():
        done = merge(tmp_path / "m", a, b, wrong)
        assert done.returncode == 2
        assert text in done.stderr
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / "m").exists()


def test_bad_input_is_one_line_and_writes_nothing(tmp_path):
    a, b = halves(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    shutil.copytree(a, tmp_path / "cut")
    cut = next((tmp_path / "cut/parts").iterdir())
    (cut / "records.parquet").write_bytes(b"PAR1")
    shutil.copytree(a, tmp_path / "newer")
    manifest = json.loads((a / "manifest.json").read_text())
    (tmp_path / "newer/manifest.json").write_text(json.dumps(manifest | {"schema": 99, "sum": None}))
    shutil.copytree(a, tmp_path / "plan")
    (tmp_path / "plan/plan.jsonl").write_text("{}\n")
    shutil.copytree(a, tmp_path / "bare")
    (tmp_path / "bare/manifest.json").unlink()
    shutil.copytree(a, tmp_path / "sums")
    (tmp_path / "sums/certificates.json").write_text("{")
    smoothing = ROOT / "results/smooth-digits-smoothing"
    for folders, out, text in [
        ((a,), "m", "nothing to merge"),
        ((a, tmp_path / "gone"), "m", "there is no folder"),
        ((a, tmp_path / "empty"), "m", "empty is no results folder (it has no plan.jsonl)"),
        ((a, tmp_path / "cut"), "m", f"{cut.name}: records.parquet is damaged"),
        ((a, tmp_path / "newer"), "m", "was written by a newer purebench (schema 99"),
        ((a, tmp_path / "plan"), "m", "plan.jsonl is damaged"),
        ((a, tmp_path / "bare"), "m", "it has no manifest.json"),
        ((a, tmp_path / "sums"), "m", "certificates.json is damaged"),
        ((a, smoothing), "m", "holds certified radii"),
        ((a, b), "full", "full is not empty; choose another folder with --out"),
        ((a, b), "full/mine.txt", "mine.txt is a file"),
        ((a, b), "full/mine.txt/m", "cannot write to"),
    ]:
        before = tree(tmp_path)
        done = merge(tmp_path / out, *folders)
        assert done.returncode == 2, (folders, out)
        assert text in done.stderr
        assert done.stderr.count("\n") == 1
        assert tree(tmp_path) == before
        assert not (tmp_path / "m").exists()


def test_hostile_names(tmp_path):
    results = deterministic(HOSTILE)
    plan = [r.line for r in results]
    a = folder(tmp_path / "a", results[:2], plan=plan)
    b = folder(tmp_path / "b", deterministic(HOSTILE)[2:], "b", plan=plan)
    assert merge(tmp_path / "m", a, b).returncode == 0
    assert len(load_results(tmp_path / "m")) == 24
    c = folder(tmp_path / "c", deterministic(HOSTILE), "c", plan=plan)
    spoil(c, "draws.parquet", columns(pred=2))
    told = merge(tmp_path / "n", a, c).stderr
    assert told.count("\n") == 1
    assert "\x1b" not in told
    assert "\u202e" not in told


def test_audits_and_certificates_are_united(tmp_path):
    a, b = (tmp_path / name for name in "ab")
    for path in (a, b):
        shutil.copytree(ROOT / "results/digits-audit", path)
    content = json.loads((b / "audit/audit.json").read_text())
    del content["sum"]
    (a / "audit/audit.json").write_text(json.dumps(content | {"audits": content["audits"][:2]}))
    (a / "audit/raw/k").mkdir(parents=True)
    (a / "audit/raw/k/check.json").write_text("{}")
    assert merge(tmp_path / "m", a, b).returncode == 0
    assert set(load_audits(tmp_path / "m")["defense"]) == set(load_audits(b)["defense"])
    assert (tmp_path / "m/audit/audit.html").is_file()
    assert (tmp_path / "m/audit/raw/k/check.json").read_text() == "{}"
    content["audits"][0]["findings"][0]["status"] = "fail"
    (a / "audit/audit.json").write_text(json.dumps(content))
    done = merge(tmp_path / "n", a, b)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"the audit of {content['audits'][0]['label']}" in done.stderr
    assert not (tmp_path / "n").exists()


def test_a_certificate_that_fails_on_one_machine_is_refused(tmp_path):
    a, b = halves(tmp_path)
    key = next(iter(certificates.read(a)))
    certificates.add(b, {key: {"passed": False}})
    done = merge(tmp_path / "m", a, b)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"the certificate {key} passes in only one of" in done.stderr


def test_a_run_that_one_folder_has_not_seen_end(tmp_path):
    a, b = halves(tmp_path)
    manifest = read_manifest(a)
    started = {k: v for k, v in manifest["runs"][0].items() if k not in ("finished", "seconds")}
    update_manifest(Store(b), {k: v for k, v in manifest.items() if k not in ("runs", "plan", "sum")}, started)
    assert merge(tmp_path / "m", b, a).returncode == 0
    assert read_manifest(tmp_path / "m")["runs"][0] == manifest["runs"][0]


def test_no_torch_is_imported(tmp_path):
    a, b = halves(tmp_path)
    code = (
        "import sys; from bench.cli.main import main; "
        f"main(['merge', {str(a)!r}, {str(b)!r}, '--out', {str(tmp_path / 'm')!r}]); print('torch' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "False"
    assert purebench("merge", "--help").returncode == 0
