"""Test majorities by a sequential rule on boards: further draws decide the majority, and nothing else."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from boards import purebench_here, write_board
from safetensors.numpy import load_file

from bench import load_draws, load_results
from bench.analysis.passes import passes_of
from bench.analysis.results import load_cells, read_results
from bench.analysis.summary import WORST, summary
from bench.audit.reproduction.verify import VerifyOptions, verify
from bench.board.load import load_board
from bench.evaluation.deployed import deployed_verdict
from bench.evaluation.verdict import verdict
from bench.execution.options import Options
from bench.execution.run_board import run_board
from bench.report.tables import write_tables
from bench.spec.aggregation import Aggregation
from bench.spec.cell import VerdictSpec
from bench.stats.sequential import Sequential
from defenses.core.defense import Prediction
from defenses.utils.errors import UserError
from defenses.zoo.registry import load_model

K, ERROR = 33, 0.02
RULE = f"draws = 5\nk = {K}\nsequential = {ERROR}"


def board_with(folder, verdict_table):
    path = write_board(folder)
    text = path.read_text().replace("first-60", "first-40").replace("1/10", "2/5")
    path.write_text(text.replace("draws = 5", verdict_table))
    return path


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Return (folder of the models, results with a rule, results with all K draws)."""
    folder = tmp_path_factory.mktemp("sequential")
    outs = []
    for name, table in (("rule", RULE), ("full", f"draws = {K}")):
        assert run_board(load_board(board_with(folder, table)), folder / name, Options(workers=0, quiet=True)) == []
        outs.append(folder / name)
    return folder, *outs


def of(frame, attack, defense="noisy"):
    chosen = frame[(frame["defense"] == defense) & (frame["attack"] == attack)]
    return chosen.sort_values("image").reset_index(drop=True)


@pytest.mark.parametrize("attack", ["none", "uniform"])
def test_decisions_are_those_of_the_rule_on_the_draws_of_the_full_count(ran, attack):
    """Null attacks have the same images on both boards."""
    _, rule, full = ran
    draws = load_draws(full)
    draws = of(draws[draws["held_out"]], attack).sort_values(["image", "draw"])
    pred = np.where(draws["rejected"], -1, draws["pred"]).astype(np.int64).reshape(-1, K)
    records = of(load_results(rule), attack)
    decisions = Sequential(K, ERROR).decide_votes(pred, records["label"].to_numpy(np.int64))
    assert records["majority_right"].tolist() == decisions.right.tolist()
    assert records["majority_draws"].tolist() == np.maximum(decisions.drawn, 5).tolist()
    if attack == "uniform":
        assert records["majority_draws"].nunique() > 2  # some images are drawn on, most are not


def test_no_other_number_uses_the_further_draws(ran):
    _, rule, full = ran
    assert load_draws(rule).query("held_out and defense == 'noisy'").groupby(["cell", "image"]).size().unique() == [5]
    records, whole = of(load_results(rule), "uniform"), of(load_results(full), "uniform")
    assert set(records["draws"]) == {5}
    first = load_draws(full)
    first = of(first[first["held_out"]], "uniform")
    first = first[first["draw"] < first["draw"].min() + 5]
    label = first["image"].map(whole.set_index("image")["label"])
    correct = (first["pred"] == label).groupby(first["image"]).sum()
    assert records["correct"].tolist() == correct.tolist()
    frame = summary(rule, m=(5,))
    noisy = frame[(frame["defense"] == "noisy") & (frame["attack"] == "uniform")].iloc[0]
    assert noisy.robust_mean == pytest.approx(records["correct"].mean() / 5)
    assert noisy.rob_m5 == pytest.approx((records["correct"] == 5).mean())
    assert noisy.majority == pytest.approx(records["majority_right"].mean())
    by_logits = of(load_draws(rule).query("held_out"), "uniform")
    mean = np.stack(by_logits["logits"].to_list()).astype(float).reshape(40, 5, 10).mean(1).argmax(1)
    assert noisy.mean_logit == pytest.approx((mean == records["label"]).mean())


def test_the_further_draws_are_predictions_too(ran):
    """A prediction of the defense takes two passes, on one board as on the other; most draws on are of noise."""
    _, rule, full = ran
    for folder in (rule, full):
        read = read_results(folder)
        cells = read.cells[read.cells["defense"] == "noisy"]
        noise = cells[cells["attack"] == "uniform"].assign(attack="none")
        assert (passes_of(cells, read.records), passes_of(noise, read.records)) == (2, 2)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_replicates_that_are_asked_for_are_decided_by_their_draws(ran, k):
    _, rule, _ = ran
    draws = of(load_draws(rule).query("held_out"), "uniform").sort_values(["image", "draw"], kind="stable")
    votes = draws["pred"].to_numpy().reshape(40, -1)[:, :k]
    label = of(load_results(rule), "uniform")["label"].to_numpy()
    counts = np.stack([(votes == c).sum(1) for c in range(10)], 1)
    right = counts[np.arange(40), label]
    counts[np.arange(40), label] = -1
    row = summary(rule, k=k).query("defense == 'noisy' and attack == 'uniform'").iloc[0]
    assert row["majority"] == pytest.approx((right > counts.max(1)).mean())


def test_attacked_images_and_the_worst_case_are_decided_too(ran):
    folder, rule, _ = ran
    records = load_results(rule)
    cells = load_cells(rule)
    held = load_file(next(rule.glob("parts/all-noisy-*")) / "adversarial.safetensors")
    keys = cells[(cells["defense"] == "noisy") & (cells["attack"] == "slow")]["key"]
    x = torch.from_numpy(np.concatenate([held[k] for k in keys]))
    defense = load_model(f"{folder / 'models.py'}:noisy", "digits")
    full = verdict(defense, x, torch.arange(40), draws=K, selection=0, seed=0)
    slow = of(records, "slow")
    decisions = Sequential(K, ERROR).decide_votes(full.predictions.T.numpy(), slow["label"].to_numpy(np.int64))
    assert slow["majority_right"].tolist() == decisions.right.tolist()
    worst = summary(rule).query(f"defense == 'noisy' and attack == '{WORST}'").iloc[0]
    assert worst.status == "ok"
    assert 0 <= worst.majority < of(records, "none")["majority_right"].mean()


def test_tables_say_how_a_majority_came_about(ran):
    _, rule, full = ran
    write_tables(rule)
    write_tables(full)
    text = (rule / "tables.md").read_text()
    mean = load_results(rule).query("defense == 'noisy'")["majority_draws"].mean()
    assert f"of {K} held-out draws by a sequential rule, error {ERROR}" in text
    assert f"mean draws made {mean:.1f}" in text
    assert "mean logit: of all held-out draws" in text
    assert "majority vote, mean logit" not in text
    assert "sequential" not in (full / "tables.md").read_text()
    assert 5 < mean < K / 2
    assert load_results(rule).query("defense == 'linear'")["majority_draws"].isna().all()


def test_a_rule_is_verified_and_resumed(ran):
    folder, rule, _ = ran
    report = verify(rule, VerifyOptions(code=folder))
    assert report.agrees
    board = load_board(board_with(folder, RULE))
    before = {p: p.stat().st_mtime_ns for p in rule.glob("parts/*/*")}
    assert run_board(board, rule, Options(workers=0, quiet=True)) == []
    assert before == {p: p.stat().st_mtime_ns for p in rule.glob("parts/*/*")}


def test_a_decision_that_is_not_that_of_the_images_is_found(ran, tmp_path):
    import shutil

    import pyarrow.parquet as pq

    from bench.store.parts import SUMS, sha256

    folder, rule, _ = ran
    shutil.copytree(rule, tmp_path / "out")
    part = next((tmp_path / "out").glob("parts/all-noisy-*"))
    table = pq.read_table(part / "records.parquet")
    at, column = table.schema.get_field_index("majority_right"), table["majority_right"].to_numpy().copy()
    column[7] = 1 - column[7]
    import pyarrow as pa

    pq.write_table(table.set_column(at, "majority_right", pa.array(column)), part / "records.parquet")
    sums = json.loads((part / SUMS).read_text()) | {"records.parquet": sha256(part / "records.parquet")}
    (part / SUMS).write_text(json.dumps(sums))
    report = verify(tmp_path / "out", VerifyOptions(code=folder))
    assert report.count("differ") == 1


def test_workers_decide_alike(ran, tmp_path):
    folder, rule, _ = ran
    board = load_board(board_with(folder, RULE))
    assert run_board(board, tmp_path / "out", Options(workers=2, quiet=True)) == []
    columns = ["key", "image", "majority_right", "majority_draws"]
    one, other = (load_results(out).rename(columns={"cell": "key"})[columns] for out in (rule, tmp_path / "out"))
    assert one.equals(other)


def test_keys_change_with_the_rule_and_only_where_it_applies(tmp_path):
    keys = {}
    for name, table in (("plain", "draws = 5"), ("rule", RULE), ("other", RULE.replace("0.02", "0.05"))):
        cells = load_board(board_with(tmp_path, table)).cells()
        keys[name] = {d: {c.key for c in cells if c.defense.label == d} for d in ("noisy", "linear")}
    assert keys["plain"]["linear"] == keys["rule"]["linear"] == keys["other"]["linear"]
    assert len(keys["plain"]["noisy"] | keys["rule"]["noisy"] | keys["other"]["noisy"]) == 3 * len(
        keys["rule"]["noisy"]
    )


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("draws = 5\nk = 33", "write sequential = 0.01"),
        ("draws = 5\nk = 34\nsequential = 0.01", "k is 34, and a majority of an even number may tie"),
        ("draws = 5\nk = 5\nsequential = 0.01", "a majority of more draws than the 5 of every image; write k = 21"),
        ("draws = 5\nsequential = 0.01", "write k = 21, say, or leave sequential out"),
        ("draws = 5\nk = 33\nsequential = 0.5", "a share above 0 and below 0.5"),
        ("draws = 5\nk = 33\nsequential = 1", "a share above 0 and below 0.5"),
        ("draws = 5\nk = 3333\nsequential = 0.01", "a sequential rule of 3333 draws; take 1 to 1001"),
    ],
)
def test_rules_that_make_no_sense_are_refused_before_any_work(tmp_path, table, words):
    done = purebench_here("run", board_with(tmp_path, table), "--out", tmp_path / "out")
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_image_that_is_not_finite_in_a_further_draw_has_no_verdict(tmp_path):
    """Logits of the first draws are finite; those of a later one are not, while the image is still undecided."""
    from defenses.data.dataset import load_dataset

    board = load_board(board_with(tmp_path, RULE))
    cell = next(c for c in board.cells() if c.defense.label == "noisy")
    inner, data = load_model(f"{tmp_path / 'models.py'}:noisy", "digits"), load_dataset("digits")

    class Fails(type(inner)):
        def decide(self, x, noise):
            self.calls += 1
            prediction = super().decide(x, noise)
            logits = torch.zeros_like(prediction.logits)
            logits[:, 0] = torch.where(torch.arange(len(x)) % 2 == 0, 1.0, -1.0)
            # Alternating votes leave every image undecided for long.
            return Prediction(torch.full_like(logits, torch.nan) if self.calls > 1 else logits, prediction.rejected)

    inner.__class__, inner.calls = Fails, 0
    deployed = deployed_verdict(cell, inner, data.x[:3], torch.zeros(3, dtype=torch.int64), torch.arange(3))
    assert deployed.draws.finite.all()
    assert inner.calls > 1
    assert not deployed.finite.any()
    columns = deployed.columns(deployed.finite)
    assert np.isnan(columns["majority_right"]).all()


def test_given_images_are_judged_by_a_rule_too(ran, tmp_path):
    folder, rule, _ = ran
    cells = load_cells(rule)
    held = load_file(next(rule.glob("parts/all-noisy-*")) / "adversarial.safetensors")
    keys = cells[(cells["defense"] == "noisy") & (cells["attack"] == "uniform")]["key"]
    np.savez(tmp_path / "given.npz", x_adv=np.concatenate([held[k] for k in keys]))
    judging = ("--eps", "2/5", "--draws", 5, "--selection", 3, "--block", 20, "--quiet", "--out", tmp_path / "out")
    chosen = ("judge", tmp_path / "given.npz", "--defense", f"{folder / 'models.py'}:noisy", *judging)
    assert purebench_here(*chosen, "--k", K, "--sequential", ERROR).returncode == 0
    ours, theirs = load_results(tmp_path / "out").query("attack == 'given'"), of(load_results(rule), "uniform")
    assert ours["majority_right"].tolist() == theirs["majority_right"].tolist()
    assert ours["majority_draws"].tolist() == theirs["majority_draws"].tolist()
    refused = purebench_here(*chosen, "--k", K)
    assert refused.returncode == 2
    assert "sequential = 0.01" in refused.stderr


def test_boards_in_python_have_the_rule_of_their_protocols(tmp_path):
    board = load_board(board_with(tmp_path, "draws = 5"))
    other = dataclasses.replace(board, protocols=Aggregation(k=K, sequential=ERROR))
    assert {c.verdict.sequential for c in other.cells() if c.defense.stochastic} == {(K, ERROR)}
    with pytest.raises(UserError, match="sequential"):
        dataclasses.replace(board, verdict=VerdictSpec(5, 3, sequential=(K, ERROR)))
