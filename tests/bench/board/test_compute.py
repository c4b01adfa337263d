"""The arithmetic of the search on a board: keys, columns, notes, commands; verdicts are those of the same images."""

import json

import numpy as np
import pytest
from boards import BOARD, purebench_here, write_board

import bench
from bench.analysis.diff.identity import identity_changes
from bench.audit.reproduction.rebuild import rebuild_cell
from bench.board.load import load_board
from bench.report.tables import write_tables
from bench.site.collect import collect
from bench.spec.compute import Compute
from bench.store.arrays import read_images
from bench.submissions.board_file import board_of
from bench.submissions.cell_checks import key_problems
from defenses.utils.errors import UserError

COMPUTE = '\n[compute]\nprecision = "bf16"\nchannels_last = true\n'
SHORT = {"name": "foolbox:LinfPGD", "steps": 3, "rel_stepsize": 0.5}


def cells_of(folder, text=BOARD):
    return load_board(write_board(folder, text)).cells()


def test_only_cells_that_search_get_another_key(tmp_path):
    plain, written, fast = (
        cells_of(tmp_path, BOARD + t) for t in ("", '\n[compute]\nprecision = "float32"\n', COMPUTE)
    )
    assert [c.key for c in plain] == [c.key for c in written]
    for before, after in zip(plain, fast, strict=True):
        searches = before.attack.queries_model
        assert (before.key != after.key) is searches
        assert ("compute" in after.identity()) is searches
        assert after.columns().get("compute", "") == ("bf16, channels_last" if searches else "")
        assert before.noise_seed("attack") == after.noise_seed("attack")
        assert "compute" not in before.columns()


def test_a_minimisation_attack_is_told_to_search_in_float32(tmp_path):
    text = BOARD.replace('"autoattack:apgd-ce"\nparams = {{ n_iter = 3 }}', '"foolbox:LInfFMNAttack"')
    assert text != BOARD
    for compute, warned in ((COMPUTE, True), ("\n[compute]\nchannels_last = true\n", False), ("", False)):
        cell = cells_of(tmp_path, text + compute)[-1]
        assert any("search in float32" in warning for warning in cell.attack.warnings) is warned


def test_a_cell_is_made_again_of_its_line(tmp_path):
    cell = cells_of(tmp_path, BOARD + COMPUTE)[-1]
    line = {**cell.columns(), "identity": json.loads(json.dumps(cell.identity()))}
    assert rebuild_cell(line).compute == Compute("bf16", channels_last=True)
    assert not list(key_problems([line]))
    del line["compute"]  # a row that hides how it was searched
    (problem,) = key_problems([line])
    assert "compute is None in its line, 'bf16, channels_last' in its identity" in problem


def test_diff_and_the_board_of_a_submission_name_it(tmp_path):
    plain, fast = (cells_of(tmp_path, BOARD + text)[-1] for text in ("", COMPUTE))
    changed = identity_changes(plain.identity(), fast.identity())
    assert changed == [("precision", "none", "bf16"), ("channels_last", "none", "True")]
    line = {**fast.columns(), "identity": fast.identity()}
    board = board_of({"board": "small", "defenses": {"noisy": dict(fast.defense.fingerprint)}}, "noisy", [line])
    assert board["compute"] == {"precision": "bf16", "channels_last": True}


def test_the_command_line_changes_the_board_and_its_name(tmp_path):
    board = load_board(write_board(tmp_path, BOARD + COMPUTE))
    same = board.with_compute({"precision": "bf16"})
    assert same is board
    plain = board.with_compute({"precision": "float32", "channels_last": False})
    assert (plain.name, plain.compute) == ("small-float32", Compute())
    assert board.with_compute({"precision": "tf32"}).name == "small-tf32-channels_last"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Results of the same attack, searched in float32 and in bfloat16."""
    folder = tmp_path_factory.mktemp("searched")
    for name, compute in (("float32", {}), ("bf16", {"precision": "bf16"})):
        bench.benchmark("undefended", 20, eps="1/5", attacks=[SHORT], out=folder / name, compute=compute)
    return folder


def test_verdicts_are_those_of_the_same_images_in_float32(folders):
    frame, cells = bench.load_results(folders / "bf16"), bench.load_cells(folders / "bf16")
    assert dict(zip(cells["attack"], cells["compute"], strict=True)) == {
        "none": "",
        "uniform": "",
        SHORT["name"]: "bf16",
    }
    (cell,) = cells[cells["compute"] == "bf16"].to_dict("records")
    x_adv = read_images(folders / "bf16" / "parts" / cell["part"], cell["key"])
    rows, judged = frame[frame["compute"] == "bf16"], bench.judge(x_adv, "undefended", eps="1/5")
    judged = judged[judged["attack"] == "given"]
    for name in ("correct", "margin", "linf"):
        assert np.array_equal(rows[name].to_numpy(), judged[name].to_numpy())
    plain = bench.load_results(folders / "float32")
    assert not np.array_equal(plain[plain["attack"] == SHORT["name"]]["margin"].to_numpy(), rows["margin"].to_numpy())
    first, second = (f[f["attack"] == "none"] for f in (plain, frame))
    assert np.array_equal(first["margin"].to_numpy(), second["margin"].to_numpy())


def test_tables_name_it_and_commands_take_it(folders):
    note = "bf16: these attacks searched in it, which may be weaker than float32: foolbox:LinfPGD"
    for name in ("bf16", "float32"):
        write_tables(folders / name)
    text = (folders / "bf16" / "tables.md").read_text()
    assert note in text
    assert "all verdicts are in float32" in text
    assert "searched in it" not in (folders / "float32" / "tables.md").read_text()
    assert "compute" not in (folders / "float32" / "tables.csv").read_text().splitlines()[0]
    (comparison,) = bench.compare(folders / "bf16", "undefended", "undefended", other=folders / "float32")
    assert comparison.difference.n == 20
    verified = purebench_here("verify", folders / "bf16")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    counted = purebench_here("status", folders / "bf16")
    assert "3 of 3 cells" in counted.stdout
    before = sorted((folders / "bf16" / "parts").iterdir())
    bench.benchmark("undefended", 20, eps="1/5", attacks=[SHORT], out=folders / "bf16", compute=Compute("bf16"))
    assert sorted((folders / "bf16" / "parts").iterdir()) == before


def test_the_site_the_report_and_the_leaderboard_name_it(folders):
    note = "bf16: these attacks searched in it, which may be weaker than float32: foolbox:LinfPGD"
    for name in ("bf16", "float32"):
        (board,) = collect([folders / name], "searched", gallery=0).boards
        assert any(text.startswith(note) for text in board.notes) is (name == "bf16")
        assert (note in bench.build_report(folders / name).json()) is (name == "bf16")
        assert set(bench.leaderboard(folders / name)["compute"]) == {"bf16" if name == "bf16" else ""}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["precison=bf16"], '--compute: unknown key "precison"; did you mean precision?'),
        (["precision=bf61"], '--compute: precision is "bf61"; it must be "float32", "tf32" or "bf16"; did you '),
        (["channels_last=1"], "--compute: channels_last is 1; it must be true or false"),
        (["precision=tf32"], 'precision is "tf32", which the device "cpu" does not have; write "float32"'),
    ],
)
def test_bad_settings_are_one_line(options, words, tmp_path):
    done = purebench_here("run", write_board(tmp_path), "--out", tmp_path / "out", "--compute", *options)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("purebench:")]
    assert words in line
    assert not (tmp_path / "out").exists()


def test_a_probe_refuses_what_a_run_refuses(tmp_path):
    done = purebench_here(
        "plan", write_board(tmp_path), "--out", tmp_path / "out", "--compute", "precision=tf32", "--probe"
    )
    assert done.returncode == 2
    assert 'precision is "tf32", which the device "cpu" does not have; write "float32"' in done.stderr


def test_bad_settings_elsewhere(tmp_path):
    with pytest.raises(UserError, match="did you mean bf16"):
        load_board(write_board(tmp_path, BOARD + COMPUTE.replace("bf16", "bf61")))
    with pytest.raises(UserError, match=r'precision in .compute. is "bf61"'):
        bench.benchmark("undefended", 2, eps="1/5", compute={"precision": "bf61"})
    with pytest.raises(UserError, match='unknown argument of judge "compute"'):
        bench.judge(np.zeros((1, 1, 8, 8), np.float32), "undefended", eps="1/5", compute={})
    done = purebench_here("status", tmp_path, "--compute", "precision=bf16")
    assert done.returncode == 2
    assert "--compute is for a board; a results folder says it itself, leave it out" in done.stderr
