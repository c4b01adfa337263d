"""AUROC, true positive rates and accuracy with rejection, by hand and from a results folder."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from fake_board import HELD, SEL, failed, line, result, write

from bench import benchmark
from bench.analysis.detection import ALL, detection
from bench.analysis.results import load_draws
from bench.analysis.summary import WORST, summary
from bench.cli.main import main
from bench.report.tables import write_tables
from bench.stats.detection import auroc, auroc_interval, detected
from defenses import load_model
from defenses.utils.errors import UserError


def test_auroc_is_that_of_scikit_learn():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    clean, adversarial = rng.integers(0, 9, 200) / 9, rng.integers(2, 12, 90) / 9  # with ties
    expected = roc_auc_score(np.r_[np.zeros(200), np.ones(90)], np.r_[clean, adversarial])
    assert auroc(clean, adversarial) == pytest.approx(expected)
    assert np.isnan(auroc(clean, np.zeros(0)))


def test_auroc_of_two_normals_and_its_interval():
    from scipy.stats import norm

    truth, covered = float(norm.cdf(1 / 2**0.5)), 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        clean, adversarial = rng.normal(0, 1, 100), rng.normal(1, 1, 60)
        low, high = auroc_interval(clean, adversarial, np.arange(60))
        covered += low <= truth <= high
    assert covered >= 51, "95% of 60, less three standard deviations"


def test_rates_keep_to_their_share_of_clean_images():
    clean = np.arange(100.0)
    assert detected(clean, np.array([94.0, 94.5, 95.0, 99.0]), 0.05).tolist() == [0, 1, 1, 1]
    assert detected(clean, np.array([98.5, 99.5]), 0.01).tolist() == [1, 1]
    assert detected(clean[:50], np.array([48.5, 49.5]), 0.01).tolist() == [0, 1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    defense = load_model("score-norm", "digits")
    attacks = [{"name": "bench:apgd", "label": "blind to it", "steps": 5}]
    attacks.append({"name": "bench:apgd", "label": "joint", "steps": 20, "detector": 1})
    benchmark(defense, 40, "digits", "Linf", eps="1/5", attacks=attacks, out=out, name="guarded")
    return out


def test_a_results_folder_tells_of_its_detectors(folder):
    frame = detection(folder).set_index("attack")
    draws = load_draws(folder)
    clean = draws[(draws["attack"] == "none") & draws["held_out"]]
    blind = frame.loc["blind to it"]
    assert blind["n_images"] == 40
    assert blind["auroc"] > 0.8
    assert blind["auroc_low"] <= blind["auroc"] <= blind["auroc_high"]
    assert blind["clean_refused"] == pytest.approx(clean["rejected"].mean())
    assert frame.loc["joint", "right_or_refused"] < blind["right_or_refused"]
    worst = frame.loc[ALL]
    assert worst["right_or_refused"] <= frame.loc["joint", "right_or_refused"]
    assert np.isnan(worst["auroc"])


def test_the_table_keeps_refusals_apart(folder, capsys):
    write_tables(folder)
    frame = summary(folder).set_index("attack")
    assert np.isnan(frame.loc["none", "right_or_refused_mean"])
    assert np.isnan(frame.loc[WORST, "right_or_refused_mean"])
    row = frame.loc["blind to it"]
    assert row["right_or_refused_mean"] == pytest.approx(row["robust_mean"] + row["rejected_mean"])
    assert "right or refused: mean %" in (folder / "tables.md").read_text()
    assert main(["detect", str(folder)]) == 0
    assert "AUROC" in capsys.readouterr().out
    assert main(["detect", str(folder), "--format", "csv"]) == 0
    assert "tpr_at_1" in capsys.readouterr().out


def test_a_folder_without_detectors_is_refused(tmp_path):
    benchmark(load_model("undefended"), 4, "digits", "Linf", eps="1/5", attacks="bench:apgd", out=tmp_path)
    write_tables(tmp_path)
    assert "score" not in load_draws(tmp_path)
    assert "right_or_refused" not in (tmp_path / "tables.csv").read_text()
    with pytest.raises(UserError, match="holds no scores"):
        detection(tmp_path)


GUARDED = {"stochastic": True, "draws": HELD, "selection": SEL, "view": "exact, 8 EOT x S runs"}


def judged(attack, images, seed, share=0.9, **more):
    """A random guarded defense that is right in a share of the draws, and refuses nothing."""
    rng = np.random.default_rng(seed)
    planned = line("noisy", attack, **(GUARDED | {"images": images} | more))
    held, chosen = (rng.binomial(n, share, images) for n in (HELD, SEL))
    cell = result(planned, held, chosen)
    cell.draws["score"] = pa.array(np.zeros(len(cell.draws["index"]), np.float32))
    return cell


def together(folder, cells, plan=None):
    frame = detection(write(folder, cells, plan))
    return frame[frame["attack"] == ALL].iloc[0]


def test_the_attack_is_chosen_on_selection_draws_and_counted_on_others(tmp_path):
    """Of eight equally strong attacks the minimum of 15 draws would say .79 where each leaves .9."""
    cells = [judged(attack, 400, seed) for seed, attack in enumerate(("none", "uniform", *"abcdefgh"))]
    row = together(tmp_path, cells)
    least = np.min([cell.records["correct"] / HELD for cell in cells[2:]], axis=0).mean()
    assert least < 0.82
    assert abs(row["right_or_refused"] - 0.9) < 3 * (0.9 * 0.1 / HELD / 400) ** 0.5
    assert row["n_images"] == 400


def test_attacks_that_know_the_judged_draw_do_not_count_together(tmp_path):
    cells = [judged(attack, 40, seed, 1.0) for seed, attack in enumerate(("none", "a", "b"))]
    known = [
        judged(attack, 40, 9, 0.0, view="exact, seed known", seed_known=True) for attack in ("none, seed known", "c")
    ]
    assert together(tmp_path, [*cells, *known])["right_or_refused"] == 1


@pytest.mark.parametrize("status", ["error", "missing"])
def test_without_the_verdicts_of_an_attack_there_is_none_under_all_together(tmp_path, status):
    cells = [judged(attack, 40, seed) for seed, attack in enumerate(("none", "a", "b"))]
    planned = line("noisy", "c", **(GUARDED | {"images": 40}))
    plan = [*({k: v for k, v in cell.line.items() if k in planned} for cell in cells), planned]
    row = together(tmp_path, [*cells, *([failed(planned, "error", "it broke")] if status == "error" else [])], plan)
    assert row["n_images"] == 0
    assert np.isnan(row["right_or_refused"])
