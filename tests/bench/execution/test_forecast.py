"""Test forecasts: exact counts for simple attacks, and their storage."""

import argparse
import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from boards import MODELS, purebench_here

from bench.attacks.registry import Attack
from bench.board.load import load_board
from bench.cli import plan
from bench.cli.plan import Machine
from bench.execution.attack_and_judge import execute
from bench.execution.cell_runner import CellRunner
from bench.execution.evaluations import evaluations
from bench.execution.finish_cell import CellReport
from bench.execution.forecast.estimates import Forecast, measured, read_forecast, write_forecast
from bench.execution.forecast.probe import probe
from bench.execution.forecast.sampled import sampled
from bench.execution.options import Options
from bench.execution.progress import Progress
from bench.spec.cell import row_of

BOARD = """
name = "forecast"
dataset = "digits"
indices = "first-60"
block = 30
threat = {{ norm = "Linf", eps = "1/5" }}

[verdict]
draws = 5
selection = 3

[[defense]]
name = "{models}:linear"
label = "linear"

[[defense]]
name = "{models}:noisy"
label = "noisy"

[[attack]]
name = "foolbox:LinfPGD"
label = "pgd"
params = {{ steps = 7, rel_stepsize = 0.1 }}
views = [{{ eot = 2, runs = 1 }}]

[[attack]]
name = "autoattack:apgd-ce"
label = "apgd"
params = {{ n_iter = 5 }}
on = "linear"
"""


@pytest.fixture(scope="module")
def board(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("forecast")
    (folder / "models.py").write_text(MODELS)
    path = folder / "forecast.toml"
    path.write_text(BOARD.format(models=folder / "models.py"))
    return path


@pytest.fixture(scope="module")
def finished(board):
    """Return (board, its folder, output of plan --probe, output of plan after the run)."""
    out = board.parent / "out"
    before = purebench_here("plan", board, "--out", out, "--probe", "--workers", 2)
    assert purebench_here("run", board, "--out", out).returncode == 0
    return board, out, before, purebench_here("plan", board, "--out", out)


def lines_of(out: Path) -> dict:
    parts = (out / "parts").glob("*/cells.jsonl")
    return {line["key"]: line for part in parts for line in map(json.loads, part.read_text().splitlines())}


def test_evaluations_of_a_probe_are_those_of_the_run(finished):
    board, out, *_ = finished
    probed, took = read_forecast(out), measured({c.key: row_of(c) for c in load_board(board).cells()}, lines_of(out))
    assert probed.keys() == took.keys()
    for row, forecast in probed.items():
        assert forecast.source == "probe"
        exact = "| apgd |" not in row  # which leaves broken images alone
        assert forecast.evaluations == pytest.approx(took[row].evaluations, rel=0.0 if exact else 0.5), row


def test_plan_tells_rows_defenses_and_totals(finished):
    _, _, before, _ = finished
    assert before.returncode == 0
    assert "Linf 1/5 | noisy | pgd | exact, 2 EOT x 1 run | 2 blocks | " in before.stdout
    assert "evaluations a block, by probe" in before.stdout
    assert "forecast for noisy: " in before.stdout
    assert "with 2 workers" in before.stdout
    assert "attacks break more images than a probe" in before.stdout
    assert "probe [1/7]" in before.stderr


def test_plan_after_a_run_goes_by_its_results(finished):
    shown = finished[3].stdout
    assert "2 blocks, 2 finished" in shown
    assert "evaluations a block, by results" in shown
    assert "by probe" not in shown


def test_plan_says_what_a_forecast_costs():
    seconds = [3600.0, 1800.0, 1800.0]
    assert Machine(1, None).cost(seconds) == ""
    assert Machine(1, 0.4).cost(seconds) == ", 0.80 at 0.4 an hour"
    assert Machine(2, 3).cost(seconds) == ", 1 h 00 min with 2 workers, 3.00 at 3 an hour"
    for price in ("x", "-1", "nan", "inf"):
        with pytest.raises(argparse.ArgumentTypeError, match=r"is no price of an hour; write it as 0\.40"):
            plan._price(price)


def test_plan_counts_seeds_and_blocks_apart(board, tmp_path):
    models = tmp_path / "models.py"
    models.write_text(MODELS + "\n\ndef noisy_seed(training_seed):\n    return noisy()\n")
    text = BOARD.format(models=models).replace(':noisy"', ':noisy_seed"\nseeds = [0, 1]')
    (tmp_path / "seeds.toml").write_text(text)
    shown = purebench_here("plan", tmp_path / "seeds.toml", "--out", tmp_path / "out").stdout
    assert "| noisy | pgd | exact, 2 EOT x 1 run | 2 seeds x 2 blocks" in shown
    assert "| linear | apgd | exact | 2 blocks" in shown


def test_plan_without_any_forecast_says_how_to_get_one(board, tmp_path):
    assert "no forecast yet: add --probe" in purebench_here("plan", board, "--out", tmp_path).stdout
    assert not list(tmp_path.iterdir())


def test_a_probe_without_time_says_at_least(board):
    loaded = load_board(board)
    rows = {row_of(c): c for c in loaded.cells() if c.attack.label == "pgd"}
    forecasts = probe(CellRunner(loaded.images, Options()), rows, budget=0.0)
    assert {f.source for f in forecasts.values()} == {"at least"}


SAMPLED = """
dataset = "digits"
indices = "first-40"
block = 40
threat = {{ norm = "Linf", eps = "1/5" }}
defense = [{{ name = "adp" }}]
verdict = {{ draws = 5, selection = 3 }}

[[attack]]
name = "{name}"
params = {{ {params} }}
views = [{view}]
"""
ASKING = [
    ("bench:adaptive", "steps = 4, eot = [2, 8], draws = 8", "{}"),
    ("bench:pgd", "steps = 4, eot = 4, draws = 8", '{ gradient = "bpda" }'),
    ("bench:square", "queries = 10, eot = 4, draws = 8", "{}"),
    ("bench:bpda-eot", "steps = 4, verify = 20", '{ gradient = "bpda", eot = 5, runs = 1 }'),
]


@pytest.mark.parametrize(("name", "params", "view"), ASKING)
def test_an_attack_that_asks_the_defense_is_run_on_some_of_its_images(tmp_path, monkeypatch, name, params, view):
    """The count of all images is exact, as noise is keyed by image; that of some images is within a factor of 1.5."""
    path = tmp_path / "sampled.toml"
    path.write_text(SAMPLED.format(name=name, params=params, view=view))
    runner = CellRunner(load_board(path).images, Options())
    cell = load_board(path).cells()[-1]
    defense, block = runner.defense(cell), runner.block(cell)
    line = execute(cell, defense, block, 10).line
    took = line["forwards"] + 2 * line["backwards"]
    _, every, complete = sampled(cell, defense, block, 10, float("inf"))
    assert complete
    assert every == pytest.approx(took, rel=0.25 if "bpda" in name else 1e-3)  # rounding
    ticks = itertools.count()  # a clock that advances at every reading, as before every call of a network
    monkeypatch.setattr(
        "bench.execution.forecast.sampled.time", SimpleNamespace(perf_counter=lambda: float(next(ticks)))
    )
    sampled(cell, defense, block, 10, float("inf"))
    seconds, some, complete = sampled(cell, defense, block, 10, 1.6 * next(ticks))
    assert complete
    assert seconds > 0
    assert some != every
    assert some == pytest.approx(took, rel=0.5)
    assert sampled(cell, defense, block, 10, float(next(ticks)))[2] is False


def test_plan_counts_attacks_that_ask_the_defense(tmp_path):
    path = tmp_path / "sampled.toml"
    path.write_text(SAMPLED.format(name=ASKING[0][0], params=ASKING[0][1], view="{}"))
    shown = purebench_here("plan", path, "--out", tmp_path / "out", "--probe").stdout
    assert "evaluations a block, by a few images" in shown
    assert "rows by a few images: their mean, and no bound" in shown
    assert "unknown" not in shown


def test_an_attack_that_fails_has_no_forecast(tmp_path):
    path = tmp_path / "failing.toml"
    (tmp_path / "raising_attack.py").write_text("def fails(view, x, y):\n    view.defense\n    raise ValueError\n")
    path.write_text(SAMPLED.format(name=tmp_path / "raising_attack.py:fails", params="", view="{}"))
    loaded = load_board(path)
    cell = loaded.cells()[-1]
    assert probe(CellRunner(loaded.images, Options()), {row_of(cell): cell}, budget=5.0) == {}


def test_a_model_that_fails_has_no_forecast_and_the_probe_says_why(tmp_path):
    (tmp_path / "nan.py").write_text("import torch\nclass NaN(torch.nn.Module):\n    def forward(self, x):\n"
                                     "        return x.flatten(1)[:, :10] * torch.nan\n"
                                     "def model():\n    return NaN().eval()\n")  # fmt: skip
    path = tmp_path / "b.toml"
    path.write_text(
        f'name = "b"\ndataset = "digits"\nindices = "first-4"\n[threat]\nnorm = "Linf"\neps = "1/5"\n'
        f'[[defense]]\nname = "{tmp_path}/nan.py:model"\n[[attack]]\nname = "autoattack:apgd-ce"\n'
    )
    shown = purebench_here("plan", path, "--probe", "--out", tmp_path / "out")
    assert shown.returncode == 0
    assert "autoattack:apgd-ce | exact cannot be probed: the defense returned logits that are not" in shown.stderr
    assert "1 row unknown" in shown.stdout


def test_a_known_seed_is_judged_on_one_draw_in_a_forecast_too(board, tmp_path):
    text = board.read_text().replace("eot = 2, runs = 1", 'seed = "known"').replace("views", 'on = "noisy"\nviews')
    path = tmp_path / "known.toml"
    path.write_text(text)
    loaded = load_board(path)
    runner = CellRunner(loaded.images, Options(quiet=True))
    chosen = {row_of(c): c for c in loaded.cells() if c.defense.label == "noisy" and c.data.start == 0}
    forecasts = probe(runner, chosen)
    for row, cell in chosen.items():
        line = runner.execute(cell).line
        forwards, backwards = (line[name] + line[f"{name}_verdict"] for name in ("forwards", "backwards"))
        assert forecasts[row].evaluations == pytest.approx(forwards + 2 * backwards, rel=0.02), row
    assert sum("seed known" in row for row in chosen) == 3


def test_forecasts_survive_a_round_trip_and_damage(tmp_path):
    rows = {"a": Forecast(1.5, 20.0, "probe"), "b": Forecast(2.0, 30.0, "at least")}
    write_forecast(tmp_path / "new", rows)
    assert read_forecast(tmp_path / "new") == rows
    for text in ("", "[]", '{"rows": {"a": {"seconds": 1}}}', '{"rows": {"a": {"seconds": "x", "evaluations": 1}}}'):
        (tmp_path / "new/forecast.json").write_text(text)
        assert read_forecast(tmp_path / "new") == {}


def test_a_library_is_loaded_before_the_clock_of_a_cell_starts(board, monkeypatch):
    """Otherwise the time of the first cell of a process would include the import."""
    loaded = load_board(board)
    runner, cell = CellRunner(loaded.images, Options()), next(c for c in loaded.cells() if c.attack.label == "apgd")
    log: list[str] = []

    def run(view, x, y, **_):
        log.append("run")
        return x.clone()

    attack = Attack("slow", run, minimisation=False, version="1", load=lambda: log.append("load"))
    monkeypatch.setattr("bench.execution.attack_and_judge.find_attack", lambda *_: attack)
    monkeypatch.setattr(
        "bench.execution.attack_and_judge.time", SimpleNamespace(perf_counter=lambda: log.append("clock") or 0.0)
    )
    assert execute(cell, runner.defense(cell), runner.block(cell), 10).line["status"] == "ok"
    assert log[:3] == ["load", "clock", "run"]


def test_what_is_expected_gives_way_to_what_was_measured(board):
    cells = [c for c in load_board(board).cells() if c.attack.label == "pgd"]
    progress = Progress(cells, workers=1, quiet=True, expected={row_of(cells[0]): 7.0})
    durations = progress.durations
    assert durations.forecast(cells[0]) == 7.0
    assert durations.expected(cells[-1]) is None
    assert durations.forecast(cells[-1]) is None
    progress.finished(CellReport(cells[0].key, "ok", 3.0, None))
    assert durations.expected(cells[1]) == 3.0
    costlier = evaluations(cells[-1]) / evaluations(cells[0])
    assert durations.forecast(cells[-1]) == pytest.approx(1.5 * 3.0 * costlier)  # of another defense
