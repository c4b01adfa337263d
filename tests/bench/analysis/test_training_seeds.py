"""Seeds of training as an axis: weights, boards, and means over seeds against counts done by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from boards import purebench_here
from fake_board import HELD, SEL, failed, line, result, row, write

from bench import load_cells, load_draws, load_results, summary, worst_per_image
from bench.analysis.summary import WORST
from bench.board.load import load_board
from bench.report.comparison_table import pivot
from bench.report.full_table import full_table
from bench.report.tables import write_tables
from bench.stats import paired_difference
from bench.stats.proportions import wilson
from defenses import load_model
from defenses.training.train import train
from defenses.utils.errors import UserError
from defenses.zoo.checkpoints import weights_hash
from defenses.zoo.weight_paths import find_weights, seeded

CLEAN = [[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]]
APGD = [[1, 1, 0, 0, 1, 0], [1, 0, 0, 0, 0, 0], [1, 1, 1, 0, 1, 1]]
SQUARE = [[1, 0, 1, 0, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]]


def trained(seeds=(0, 1, 2), name="at"):
    """Three trainings of a deterministic defense."""
    return [
        result(line(name, attack, training_seed=s), counts[s], size=size)
        for s in seeds
        for attack, counts, size in (("none", CLEAN, 0), ("apgd", APGD, 0.2), ("square", SQUARE, 0.1))
    ]


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "board", trained())


# Aggregates


def test_rows_are_means_over_seeds_and_their_spread(folder):
    apgd = row(summary(folder), "at", "apgd")
    per_seed = [3 / 6, 1 / 6, 5 / 6]
    assert apgd.n_seeds == 3
    assert apgd.robust_mean == pytest.approx(np.mean(per_seed))
    assert apgd.robust_sd_seeds == pytest.approx(np.std(per_seed, ddof=1))
    assert apgd.clean_sd_seeds == pytest.approx(np.std([5 / 6, 4 / 6, 1], ddof=1))
    assert (apgd.n_images, apgd.planned, apgd.coverage, apgd.draws) == (6, 6, 1, 1)
    low, high = wilson(np.mean(APGD, axis=0).sum(), 6)  # n = images, not images times seeds
    assert (apgd.robust_low, apgd.robust_high) == (pytest.approx(float(low)), pytest.approx(float(high)))
    assert apgd.asr_newly_wrong == pytest.approx((2 + 3 + 1) / 3)
    assert apgd.asr == pytest.approx((2 + 3 + 1) / (5 + 4 + 6))
    assert apgd.evaluations_per_image == 20


def test_the_worst_case_is_chosen_for_each_training_apart(folder):
    worst = row(summary(folder), "at", WORST)
    per_seed = [np.min([c, a, s], axis=0).mean() for c, a, s in zip(CLEAN, APGD, SQUARE, strict=True)]
    assert worst.robust_mean == pytest.approx(np.mean(per_seed))
    assert worst.robust_sd_seeds == pytest.approx(np.std(per_seed, ddof=1))
    assert worst["strict_rank"] == 1
    # The minimum over seeds too would be another number.
    assert worst.robust_mean > np.min([*CLEAN, *APGD, *SQUARE], axis=0).mean()


def test_rows_by_seed(folder):
    frame = summary(folder, by_seed=True)
    assert frame[frame.attack == "apgd"][["training_seed", "robust_mean", "n_seeds"]].values.tolist() == [
        [0, 3 / 6, 1],
        [1, pytest.approx(1 / 6), 1],
        [2, pytest.approx(5 / 6), 1],
    ]
    assert frame["strict_rank"].isna().all()
    assert frame["robust_sd_seeds"].isna().all()
    alone = summary(write(folder / "alone", trained([1])))
    same = frame[frame.training_seed == 1].drop(columns=["training_seed", "strict_rank"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(same, alone.drop(columns="strict_rank"))


def test_a_seed_that_is_incomplete_costs_the_rank(tmp_path):
    lost = failed(line("at", "square", training_seed=1), "error", "RuntimeError: boom")
    results = [lost if r.line["key"] == lost.line["key"] else r for r in trained()]
    frame = summary(write(tmp_path, [*results, *trained([0], "other")]))
    square, worst = row(frame, "at", "square"), row(frame, "at", WORST)
    assert square.status == "partial: without (all of) training seed 1 (error: RuntimeError: boom)"
    assert (square.n_images, math.isnan(square.robust_mean)) == (0, True)
    assert pd.isna(worst["strict_rank"])
    assert "training seed 1" in worst.status
    assert row(frame, "at", "apgd").status == "ok"
    assert row(frame, "other", WORST)["strict_rank"] == 1
    assert set(worst_per_image(tmp_path).query("defense == 'at'")["training_seed"]) == {0, 2}


def test_only_images_that_all_seeds_have_judged_count(tmp_path):
    results = trained([0, 1])
    problems = ["", "", "the attack left the box [0, 1]", "", "", ""]
    results[4] = result(line("at", "apgd", training_seed=1), APGD[1], problems=problems)
    apgd = row(summary(write(tmp_path, results)), "at", "apgd")
    kept = [0, 1, 3, 4, 5]
    assert apgd.n_images == 5
    assert apgd.robust_mean == pytest.approx(np.mean([np.array(a)[kept] for a in APGD[:2]]))
    assert apgd.status.startswith("partial: without (all of) training seed 1 (partial: 5 of 6 images")


def test_stochastic_draws_meet_the_clean_images_of_their_own_seed(tmp_path):
    more = {"stochastic": True, "draws": HELD, "selection": SEL}
    clean, hit = {0: [15] * 6, 1: [5] * 6}, {0: [3] * 6, 1: [3] * 6}
    results = [
        result(line("noisy", attack, training_seed=s, **more), counts[s], [4] * 6)
        for s, (attack, counts) in itertools.product((0, 1), (("none", clean), ("apgd", hit)))
    ]
    frame = summary(write(tmp_path, results), by_seed=True)
    apgd = frame[frame.attack == "apgd"].set_index("training_seed")
    # Draw by draw: the first draws are the right ones.
    assert apgd["asr_newly_wrong"].tolist() == pytest.approx([6 * 12 / 15, 6 * 2 / 15])
    assert apgd["clean_mean"].tolist() == pytest.approx([1, 1 / 3])


# Rows of images


def test_records_name_their_seed(folder):
    frame = load_results(folder)
    assert len(frame) == 3 * 3 * 6
    assert not frame.duplicated(["defense", "training_seed", "attack", "image"]).any()
    one = frame[(frame.attack == "apgd") & (frame["image"] == 4)].set_index("training_seed")
    assert one["clean"].tolist() == [1, 0, 1]
    assert load_cells(folder)["training_seed"].tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert set(load_draws(folder)["training_seed"]) == {0, 1, 2}


def test_worst_per_image_keeps_trainings_apart(folder):
    worst = worst_per_image(folder)
    assert worst.groupby("training_seed").size().tolist() == [6, 6, 6]
    by_seed = worst.pivot(index="image", columns="training_seed", values="accuracy")
    expected = np.min([CLEAN, APGD, SQUARE], axis=0)
    assert (expected == by_seed.to_numpy().T).all()
    paired = paired_difference(by_seed[2], by_seed[1])
    assert (paired.n, paired.difference) == (6, pytest.approx((expected[2].sum() - expected[1].sum()) / 6))


# Tables


def test_tables_show_the_spread_and_every_seed(folder):
    write_tables(folder)
    frame = summary(folder)
    shown = dict(zip(pivot(frame).columns, pivot(frame).rows[0], strict=True))
    worst = row(frame, "at", WORST)
    text = f"{100 * worst.robust_mean:.2f} [{100 * worst.robust_low:.2f}, {100 * worst.robust_high:.2f}]"
    assert shown["worst case: mean % [95%]"] == f"{text} ± {100 * worst.robust_sd_seeds:.2f} (3 seeds)"
    assert shown["apgd: mean % [95%]"] == "50.00 [18.76, 81.24] ± 33.33 (3 seeds)"
    whole = full_table(frame, by_seed=summary(folder, by_seed=True))
    assert [r[0] for r in whole.rows[:4]] == ["at", *(f"at (training seed {s})" for s in (0, 1, 2))]
    assert whole.strong == {12}
    assert any(n.startswith("±: sample standard deviation") for n in whole.footnotes)
    assert {"n_seeds", "clean_sd_seeds", "robust_sd_seeds"} <= {*pd.read_csv(folder / "tables.csv")}


def test_one_training_leaves_no_trace_in_tables(tmp_path):
    plain = [
        result(line("at", attack), counts[0], size=size)
        for attack, counts, size in (("none", CLEAN, 0), ("apgd", APGD, 0.2), ("square", SQUARE, 0.1))
    ]
    named, bare = write(tmp_path / "a" / "board", trained([0])), write(tmp_path / "b" / "board", plain)
    for folder in (named, bare):
        write_tables(folder)
    for file in ("tables.txt", "tables.csv", "tables.md", "tables.tex", "tables.html"):
        assert (named / file).read_bytes() == (bare / file).read_bytes()
        assert b"seeds" not in (named / file).read_bytes()


# Weights and boards

_QUICK = {"phases": [{"until": 4, "optimizer": "adam", "lr": 1e-3}], "validate_every": 4, "unit": "steps", "batch": 32}

_BOARD = """
name = "seeds"
dataset = "digits"
indices = "first-20"
block = 20

[threat]
norm = "Linf"
eps = "1/5"

[[defense]]
name = "undefended"
label = "plain"
seeds = [0, 1]

[[attack]]
name = "foolbox:LinfFastGradientAttack"
"""


def _board(folder, text=_BOARD):
    path = folder / "seeds.toml"
    path.write_text(text)
    return path


def _trained(folder, *seeds):
    for seed in seeds:
        train("undefended", "digits", out=folder / "digits", seed=seed, overrides=_QUICK, progress=False)


def test_a_board_of_two_trainings_from_end_to_end(tmp_path):
    weights, out = tmp_path / "weights", tmp_path / "out"
    _trained(weights, 0, 1)
    assert {p.name for p in (weights / "digits").glob("*.safetensors")} == {
        "undefended.safetensors",
        "undefended.seed1.safetensors",
    }
    path = _board(tmp_path)
    done = purebench_here("run", path, "--out", out, "--weights-root", weights)
    assert done.returncode == 0, done.stderr
    assert "(2 seeds)" in done.stdout
    frame, by_seed = summary(out), summary(out, by_seed=True)
    fgsm = by_seed[by_seed.attack == "foolbox:LinfFastGradientAttack"]
    assert fgsm["training_seed"].tolist() == [0, 1]
    assert row(frame, "plain", WORST).n_seeds == 2
    # Each training was attacked and judged as the model that it is.
    from defenses.data.dataset import load_dataset

    data = load_dataset("digits")
    clean = by_seed[by_seed.attack == "none"].set_index("training_seed")["clean_mean"]
    for seed in (0, 1):
        model = load_model("undefended", "digits", weights_root=weights, training_seed=seed)
        right = (model(data.x[:20]).argmax(1) == data.y[:20]).float().mean().item()
        assert clean[seed] == pytest.approx(right)
    again = purebench_here("run", path, "--out", out, "--weights-root", weights)
    assert again.stdout == done.stdout


def test_the_first_seed_keeps_its_keys(tmp_path):
    one = load_board(_board(tmp_path, _BOARD.replace("seeds = [0, 1]\n", "")))
    first = load_board(_board(tmp_path, _BOARD.replace("[0, 1]", "[0]")))
    assert [c.key for c in one.cells()] == [c.key for c in first.cells()]
    assert first.cells()[0].columns()["training_seed"] == 0
    assert "training_seed" not in one.cells()[0].columns()


def test_missing_weights_are_one_line_with_the_command(tmp_path):
    with pytest.raises(UserError, match=r'no weights of "undefended" with training seed 1 .*') as error:
        load_board(_board(tmp_path), weights_root=tmp_path)
    assert str(error.value).endswith("purebench train undefended --dataset digits --seed 1")
    _trained(tmp_path, 1)
    # A purifier takes the classifier of the same seed, and a network of its own that is missing is no seed 0.
    with pytest.raises(UserError, match=r"purebench train adp --dataset digits --seed 1"):
        load_model("adp", "digits", weights_root=tmp_path, training_seed=1)


def test_all_networks_of_a_purifier_are_of_the_seed(tmp_path):
    _trained(tmp_path, 1)
    train("adp", "digits", out=tmp_path / "digits", seed=1, overrides=_QUICK, progress=False)
    model = load_model("adp", "digits", weights_root=tmp_path, training_seed=1)
    own = {name: weights_hash(name, "digits", tmp_path, training_seed=1) for name in ("adp", "undefended")}
    assert vars(model)["provenance"].fingerprint["weights"] == own
    assert own["adp"] != weights_hash("adp", "digits")
    for part in ("purifier", "classifier"):
        pairs = zip(getattr(model, part).parameters(), getattr(load_model("adp"), part).parameters(), strict=True)
        assert any(not a.equal(b) for a, b in pairs)


def test_weights_of_another_seed_are_refused(tmp_path):
    _trained(tmp_path, 0)
    for ending in (".safetensors", ".json"):
        source = find_weights("undefended", "digits", tmp_path).with_suffix(ending)
        source.with_name(f"{seeded('undefended', 3)}{ending}").write_bytes(source.read_bytes())
    with pytest.raises(UserError, match=r"was trained with seed 0, not 3; .*--seed 3"):
        load_model("undefended", "digits", weights_root=tmp_path, training_seed=3)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("seeds = []", "a list of whole numbers"),
        ("seeds = [0, 0]", "without repeats"),
        ("seeds = [-1]", "at least 0"),
        ("seeds = 1", "a list of whole numbers"),
        ('seeds = [0]\n[[defense]]\nname = "undefended"\nlabel = "plain"\nseeds = [0]', "occurs twice"),
        ('seeds = [0]\n[[defense]]\nname = "pgd-at"\nlabel = "plain"\nseeds = [1]', "seed 1"),
    ],
)
def test_bad_seeds_are_refused(tmp_path, given, problem):
    with pytest.raises(UserError, match=problem):
        load_board(_board(tmp_path, _BOARD.replace("seeds = [0, 1]", given)))


def test_a_class_of_one_s_own_gets_the_seed(tmp_path):
    (tmp_path / "seeded.py").write_text(
        "import torch\n"
        "class Mine(torch.nn.Module):\n"
        "    def __init__(self, training_seed=0):\n"
        "        super().__init__()\n"
        "        g = torch.Generator().manual_seed(training_seed)\n"
        "        self.w = torch.nn.Parameter(torch.randn(64, 10, generator=g))\n"
        "        self.eval()\n"
        "    def forward(self, x):\n"
        "        return x.flatten(1) @ self.w\n"
        "made = Mine()\n"
    )
    board = load_board(_board(tmp_path, _BOARD.replace('"undefended"', f'"{tmp_path}/seeded.py:Mine"')))
    assert [d.training_seed for d in board.defenses] == [0, 1]
    assert len({d.fingerprint["state"] for d in board.defenses}) == 2
    with pytest.raises(UserError, match="made already"):
        load_board(_board(tmp_path, _BOARD.replace('"undefended"', f'"{tmp_path}/seeded.py:made"')))
    with pytest.raises(UserError, match="leave the training seed out"):
        load_model("robustbench:Standard", "cifar10", training_seed=1)
