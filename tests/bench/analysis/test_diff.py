"""Test that two runs are told apart by every kind of change, and that ties are not taken for one."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from boards import ROOT, purebench_here
from fake_board import HOSTILE, deterministic, failed, line, recorded, result, stochastic

import bench
from bench.spec.cell import SCHEMA
from bench.stats.paired import paired_difference
from defenses.utils.errors import UserError


def identity(**changes):
    """An identity of a cell, with changes of single values."""
    base = {
        "schema": SCHEMA,
        "defense": {"name": "plain", "parameters": {"runs": "5"}, "version": "1", "weights": {"plain": "aa"}},
        "attack": ["autoattack:apgd-ce", {"n_iter": 10}, "pyautoattack 0.2.0"],
        "data": ["digits", "test", "r1", "h1", 0, 6],
        "threat": ["Linf", "1/5", "none"],
        "view": ["exact", 1, None, "logits"],
        "verdict": [1, 0],
        "seed": 0,
    }
    return base | changes


def rekeyed(results, at, key="0" * 20, **changes):
    """The same cells, one of them under another key."""
    one = results[at]
    one.line |= {"key": key, "identity": identity(**changes)}
    one.records["cell"] = [key] * len(one.records["cell"])
    one.draws["cell"] = pa.array([key] * len(one.draws["index"]), pa.string()).dictionary_encode()
    return results


def board(path, results, **more):
    return recorded(path, results, more.pop("plan", [r.line for r in results]), **more)


def row(frame, attack, defense="plain"):
    (found,) = frame[(frame["attack"] == attack) & (frame["defense"] == defense)].to_dict("records")
    return found


def diff(old, new):
    found = bench.diff_runs(old, new)
    done = purebench_here("diff", old, new)
    assert done.returncode == int(found.differs), done.stderr
    told = json.loads(purebench_here("diff", old, new, "--json").stdout)
    assert told["schema"] == 1
    assert told["cells"] == found.cells
    assert len(told["rows"]) == len(found.rows)
    assert len(told["images"]) == len(found.images)
    return found, done.stdout


def test_the_same_bits_are_no_difference(tmp_path):
    old = board(tmp_path / "a", [*deterministic(), *stochastic()])
    new = board(tmp_path / "b", [*deterministic(), *stochastic()], run="b")
    found, text = diff(old, new)
    assert not found.differs
    assert found.cells["same"] == 8
    assert sum(found.cells.values()) == 8
    assert set(found.rows["state"]) == {"same"}
    assert not len(found.images)
    assert "8 cells: 8 the same bits; the runs agree" in text
    assert ("torch", "a", "b") in found.environment


def test_other_verdicts_under_one_key(tmp_path):
    """Image 0 is lost, image 2 won, under `apgd`: the worst case loses image 0 and wins none."""
    results = deterministic()
    results[2] = result(line("plain", "apgd"), [0, 1, 1, 0, 1, 0])
    found, text = diff(board(tmp_path / "a", deterministic()), board(tmp_path / "b", results))
    assert {k: n for k, n in found.cells.items() if n} == {"same": 3, "differ": 1}
    of = row(found.rows, "apgd")
    assert (of["differing"], of["tied"], of["lost"], of["won"], of["n"]) == (2, 0, 1, 1, 6)
    assert (of["old_mean"], of["new_mean"], of["difference"]) == (0.5, 0.5, 0.0)
    assert found.images[found.images["attack"] == "apgd"]["image"].tolist() == [0, 2]
    assert found.images[found.images["attack"] == "apgd"]["flip"].tolist() == ["lost", "won"]
    worst = row(found.rows, "worst case")
    old, new = (bench.worst_per_image(tmp_path / name)["robust"].to_numpy() for name in "ab")
    paired = paired_difference(new, old)
    assert (worst["old_mean"], worst["new_mean"]) == (old.mean(), new.mean())
    assert (worst["difference"], worst["low"], worst["high"]) == (paired.difference, paired.low, paired.high)
    assert "the runs differ" in text
    assert "+0.00 [" in text


def tied(at, gap):
    """The cells of `deterministic`, with image `at` of `apgd` wrong by a gap of the two largest logits."""
    results = deterministic()
    one = results[2] = result(line("plain", "apgd"), [int(i != at and ok) for i, ok in enumerate([1, 1, 0, 0, 1, 0])])
    logits = np.stack(one.draws["logits"].to_numpy(zero_copy_only=False)).astype(np.float32)
    logits[at] = [0, gap, -1]
    one.draws["logits"] = pa.FixedSizeListArray.from_arrays(pa.array(logits.ravel()), 3)
    return results


@pytest.mark.parametrize(("gap", "kind", "state"), [(1e-6, "ties", "ties"), (1e-3, "differ", "differs")])
def test_a_tie_is_no_difference(tmp_path, gap, kind, state):
    found, text = diff(board(tmp_path / "a", deterministic()), board(tmp_path / "b", tied(1, gap)))
    assert {k: n for k, n in found.cells.items() if n} == {"same": 3, kind: 1}
    assert found.differs is (kind == "differ")
    of, worst = row(found.rows, "apgd"), row(found.rows, "worst case")
    assert (of["state"], of["differing"], of["tied"], of["lost"]) == (state, 1, int(kind == "ties"), 1)
    assert of["new_mean"] - of["old_mean"] == pytest.approx(-1 / 6)
    assert worst["tied"] == worst["differing"]  # image 1 is broken by square, too
    assert ("the runs agree, ties apart" in text) is (kind == "ties")


def test_margins_alone_agree(tmp_path):
    results = deterministic()
    results[3].draws["margin"] = results[3].draws["margin"] + np.float32(1e-4)
    found, _ = diff(board(tmp_path / "a", deterministic()), board(tmp_path / "b", results))
    assert {k: n for k, n in found.cells.items() if n} == {"same": 3, "agree": 1}
    assert not found.differs
    assert row(found.rows, "square")["state"] == "agrees"


CHANGES = [
    ({"attack": ["autoattack:apgd-ce", {"n_iter": 20}, "pyautoattack 0.2.0"]}, "attack parameter n_iter", "10", "20"),
    ({"attack": ["autoattack:apgd-ce", {"n_iter": 10}, "pyautoattack 0.3.0"]}, "attack's library",
     "pyautoattack 0.2.0", "pyautoattack 0.3.0"),
    ({"defense": identity()["defense"] | {"weights": {"plain": "bb"}}}, "weights plain", "aa", "bb"),
    ({"defense": identity()["defense"] | {"parameters": {"runs": "9"}}}, "parameter runs", "5", "9"),
    ({"defense": identity()["defense"] | {"parameters": {}}}, "parameter runs", "5", "none"),
    ({"data": ["digits", "test", "r2", "h1", 0, 6]}, "data revision", "r1", "r2"),
    ({"view": ["exact", 8, None, "logits"]}, "EOT copies", "1", "8"),
    ({"view": ["exact", 1, None, "logits", "known"]}, "seed known", "none", "known"),
    ({"verdict": [65, 0]}, "held-out draws", "1", "65"),
    ({"seed": 1}, "seed", "0", "1"),
    ({"source": {"name": "undefended"}}, "surrogate's defense", "none", "undefended"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "what", "old", "new"), CHANGES, ids=[change[1] for change in CHANGES])
def test_another_key_says_what_changed(tmp_path, changes, what, old, new):
    before = rekeyed(deterministic(), 2, key="1" * 20)
    found, text = diff(board(tmp_path / "a", before), board(tmp_path / "b", rekeyed(deterministic(), 2, **changes)))
    assert {k: n for k, n in found.cells.items() if n} == {"same": 3, "other_key": 1}
    assert found.differs
    (change,) = found.changes.to_dict("records")
    assert (change["attack"], change["what"], change["old"], change["new"], change["cells"]) == (
        "apgd",
        what,
        old,
        new,
        1,
    )
    assert what in text
    assert row(found.rows, "apgd")["differing"] == 0


def test_cells_of_another_size_are_compared_by_image(tmp_path):
    halves = [
        result(line("plain", "apgd", block=0, images=3), [1, 1, 0]),
        result(line("plain", "apgd", block=3, images=3), [0, 0, 0]),
    ]
    rest = [r for r in deterministic() if r.line["attack"] != "apgd"]
    whole = rekeyed(deterministic(), 2)
    for one in halves:
        one.line["identity"] = identity(data=["digits", "test", "r1", "h1", one.line["block"], one.line["block"] + 3])
    found, _ = diff(board(tmp_path / "a", whole), board(tmp_path / "b", [*rest, *halves]))
    assert {k: n for k, n in found.cells.items() if n} == {"same": 3, "other_key": 2}
    of = row(found.rows, "apgd")
    assert (of["n"], of["differing"], of["lost"]) == (6, 1, 1)
    assert found.images[found.images["attack"] == "apgd"]["image"].tolist() == [4]


def test_cells_of_one_run_and_other_states(tmp_path):
    old = deterministic()
    new = [old[0], old[1], failed(old[2].line, "error", "out of luck"), *stochastic()[:1]]
    found, text = diff(
        board(tmp_path / "a", deterministic()),
        board(tmp_path / "b", new, plan=[*(r.line for r in deterministic()), stochastic()[0].line]),
    )
    assert {k: n for k, n in found.cells.items() if n} == {"same": 2, "status": 1, "only_old": 1, "only_new": 1}
    assert ("new", "plain", "apgd (exact), error: out of luck") in found.warnings
    assert "warning new: plain: apgd (exact), error: out of luck" in text
    assert pd.isna(row(found.rows, "square")["difference"])
    assert row(found.rows, "none", "noisy")["n_new"] == 6


def test_warnings_come_and_go(tmp_path):
    old = [r.line | {"warnings": ["weak: 3 steps"]} if r.line["attack"] == "apgd" else r.line for r in deterministic()]
    found, _ = diff(board(tmp_path / "a", deterministic(), plan=old), board(tmp_path / "b", deterministic()))
    assert ("gone", "plain", "apgd: weak: 3 steps") in found.warnings
    back, _ = diff(tmp_path / "b", tmp_path / "a")
    assert ("new", "plain", "apgd: weak: 3 steps") in back.warnings
    assert not found.differs


def test_bad_input_is_one_line(tmp_path):
    good = board(tmp_path / "good", deterministic())
    (tmp_path / "empty").mkdir()
    other = board(tmp_path / "other", deterministic("another"))
    second = board(tmp_path / "second", deterministic(), board="second")  # of the same rows
    cut = board(tmp_path / "cut", deterministic())
    next(cut.glob("parts/*/draws.parquet")).write_bytes(b"PAR1")
    newer = board(tmp_path / "newer", deterministic())
    manifest = json.loads((newer / "manifest.json").read_text())
    (newer / "manifest.json").write_text(json.dumps(manifest | {"schema": 99, "sum": None}))
    for wrong, text in [
        (tmp_path / "gone", "holds no results"),
        (tmp_path / "empty", "holds no results"),
        (other, "no finished row in common; name two runs of one board"),
        (second, f'{good} holds results of the board "fake", {second} of "second"'),
        (cut, "draws.parquet"),
        (newer, "newer purebench (schema 99"),
        (ROOT / "results/smooth-digits-smoothing", "holds certified radii"),
    ]:
        done = purebench_here("diff", good, wrong)
        assert (done.returncode, done.stderr.count("\n"), done.stdout) == (2, 1, ""), done.stderr
        assert text in done.stderr
        with pytest.raises(UserError):
            bench.diff_runs(good, wrong)


def test_hostile_names(tmp_path):
    results = deterministic(HOSTILE)
    results[2] = result(line(HOSTILE, "apgd"), [0, 1, 1, 0, 1, 0])
    found, text = diff(board(tmp_path / "a", deterministic(HOSTILE)), board(tmp_path / "b", results))
    assert found.differs
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_the_table_fits_the_terminal(tmp_path):
    from bench.report.diff import as_text

    results = deterministic("a defense with quite a long name of its own")
    results[2] = result(line(results[2].line["defense"], "apgd"), [0, 1, 1, 0, 1, 0])
    board(tmp_path / "a", deterministic(results[2].line["defense"]))
    found = bench.diff_runs(tmp_path / "a", board(tmp_path / "b", results))
    for width in (80, 120):
        assert max(map(len, as_text(found, width).splitlines()[:-1])) <= width


def test_no_torch_is_imported(tmp_path):
    a, b = board(tmp_path / "a", deterministic()), board(tmp_path / "b", deterministic())
    code = (
        "import sys; from bench.cli.main import main; "
        f"main(['diff', {str(a)!r}, {str(b)!r}]); print({{'torch', 'sklearn'}} & {{*sys.modules}})"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "set()"
