"""Two rows on the same images: what `compare` counts, and what it refuses to compare."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fake_board import HELD, SEL, deterministic, line, result, stochastic, write

from bench import leaderboard, summary
from bench.analysis.compare import compare
from bench.analysis.summary import WORST
from bench.stats import paired
from defenses.utils.errors import UserError


def identified(folder, revision="r1"):
    """The folder with what its cells' identities say of the data."""
    for part in (folder / "parts").iterdir():
        import hashlib

        path, sums = part / "cells.jsonl", json.loads((part / "checksums.json").read_text())
        lines = [json.loads(text) | {"identity": {"schema": 1, "data": ["digits", "test", revision, "h", 0, 6]}}
                 for text in path.read_text().splitlines()]  # fmt: skip
        path.write_text("".join(json.dumps(x) + "\n" for x in lines))
        sums["cells.jsonl"] = hashlib.sha256(path.read_bytes()).hexdigest()
        (part / "checksums.json").write_text(json.dumps(sums))
    return folder


@pytest.fixture
def out(tmp_path):
    return write(tmp_path / "out", deterministic() + deterministic("other")[:2] + [
        result(line("other", "apgd"), [0, 1, 0, 0, 1, 1]),
        result(line("other", "square"), [1, 1, 0, 0, 1, 1]),
    ] + stochastic())  # fmt: skip


def test_single_verdicts_are_mcnemar_s(out):
    (found,) = compare(out, "plain@apgd", "other@apgd")
    a, b = np.array([1, 1, 0, 0, 1, 0]), np.array([0, 1, 0, 0, 1, 1])
    by_hand = paired.paired_difference(a, b)
    assert found.decisions == by_hand
    assert (found.decisions.only_a, found.decisions.only_b, found.both) == (1, 1, 2)
    assert (found.difference.value, found.difference.low, found.difference.n) == (0, by_hand.low, 6)
    assert found.how == "Bonett and Price, paired images"
    assert (found.planned, found.a.title) == (6, "plain, apgd (exact)")


def test_worst_cases_are_the_table_s(out):
    (found,) = compare(out, "plain", "noisy")
    rows = summary(out)
    rows = rows[rows["attack"] == WORST].set_index("defense")
    for side in (found.a, found.b):
        row, share = rows.loc[side.title.split(",")[0]], side.share(0.95)
        assert (share.value, share.low) == pytest.approx((row["robust_mean"], row["robust_low"]))
        assert share.high == pytest.approx(row["robust_high"])
    assert found.difference.value == pytest.approx(rows["robust_mean"]["plain"] - rows["robust_mean"]["noisy"])
    assert found.how == "Bonett and Price, paired images"


def test_draws_are_compared_by_shares_and_by_majorities(out):
    (found,) = compare(out, "noisy@apgd", "noisy@square")
    a, b = np.array([15, 9, 6, 0, 9, 3]) / 15, np.array([12, 3, 9, 6, 8, 0]) / 15
    by_hand = paired.paired_difference(a, b)
    assert (found.difference.value, found.difference.low) == (by_hand.difference, by_hand.low)
    assert found.decisions == paired.paired_difference(a > 0.5, b > 0.5)


@pytest.mark.parametrize("name", ["noisy@none", "noisy@clean images", "noisy@none (exact)"])
def test_clean_images_have_their_names(out, name):
    (found,) = compare(out, name, "noisy@uniform noise")
    assert found.a.shares.mean() == pytest.approx(np.mean([15, 15, 15, 15, 12, 3]) / 15)


def test_the_sides_are_changed_over(out):
    (there,), (back,) = compare(out, "plain", "other"), compare(out, "other", "plain")
    assert there.difference.value == -back.difference.value
    assert there.decisions.only_a == back.decisions.only_b
    assert there.both == back.both


def test_each_setting_is_compared_apart(tmp_path):
    both = [r for eps in ("1/5", "1/10") for name in ("plain", "other") for r in deterministic(name, eps=eps)]
    found = compare(write(tmp_path / "out", both), "plain", "other@apgd")
    assert [c.a.setting[4] for c in found] == ["1/5", "1/10"]


def test_several_trainings_vary_too(tmp_path):
    one = [1, 1, 1, 1, 0, 0]
    trained = [r for seed, right in enumerate((one, one[::-1], [0] * 6)) for r in (
        result(line("at", "none", training_seed=seed), [1] * 6, size=0),
        result(line("at", "apgd", training_seed=seed), right))]  # fmt: skip
    (found,) = compare(write(tmp_path / "out", trained + deterministic()), "at", "plain@apgd")
    assert found.a.shares.shape == (3, 6)
    assert "mean over 3 trainings" in found.a.title
    assert found.decisions is None
    assert found.difference.value == pytest.approx(8 / 18 - 0.5)
    assert found.difference.low < -0.6 < 0.4 < found.difference.high  # three trainings say little


def test_trainings_that_all_agree_are_told_apart(tmp_path):
    """All of 6 images against none, in two trainings each: the bootstrap has no width, and said nothing."""
    cells = []
    for name, right, seed in (("good", 1, 0), ("good", 1, 1), ("bad", 0, 0), ("bad", 0, 1)):
        more = {"training_seed": seed}
        cells += [result(line(name, "none", **more), [1] * 6), result(line(name, "apgd", **more), [right] * 6)]
    out = write(tmp_path / "out", cells)
    (found,) = compare(out, "good", "bad")
    expected = paired.paired_difference([1] * 6, [0] * 6)
    assert (found.difference.value, found.difference.low, found.difference.high) == (1, expected.low, expected.high)
    assert found.how == "Bonett and Price, paired images"
    assert leaderboard(out)[["defense", "rank_low", "rank_high"]].to_numpy().tolist() == [["good", 1, 1], ["bad", 2, 2]]


def test_no_difference_of_accuracies_exceeds_one(tmp_path):
    """Two trainings that differ much: Student's t of one degree of freedom reaches further."""
    cells = []
    for name, right, seed in (("at", [1] * 6, 0), ("at", [0, 0, 0, 0, 0, 1], 1), ("other", [0] * 6, 0)):
        more = {"training_seed": seed}
        cells += [result(line(name, "none", **more), [1] * 6), result(line(name, "apgd", **more), right)]
    (found,) = compare(write(tmp_path / "out", cells), "at", "other")
    assert (found.difference.low, found.difference.high) == (-1, 1)


def test_an_image_without_a_verdict_on_one_side_is_refused(tmp_path):
    gap = result(line("other", "apgd"), [1] * 6, problems=["", "", "boom", "", "", ""])
    out = write(tmp_path / "out", [*deterministic(), gap])
    with pytest.raises(UserError, match=r"verdicts of 1 images that other, apgd .exact. has not"):
        compare(out, "plain@apgd", "other@apgd")


def test_other_threats_draws_and_budgets_are_refused(tmp_path):
    more = {"stochastic": True, "draws": HELD, "selection": SEL}
    few = [result(line("few", a, **more), [9] * 6, [2] * 6) for a in ("none", "pgd")]
    for r in few:
        r.records["draws_sel"] = r.records["draws_sel"] // 2
        r.records["correct_sel"] = r.records["correct_sel"] // 2
    rows = [*deterministic(), *stochastic(), *few]
    rows += [r for name in ("far",) for r in deterministic(name, eps="1/3")]
    rows += deterministic("cheap", budget="reduced")
    out = write(tmp_path / "out", rows)
    for name, words in {
        "far": "plain was judged on digits test .first-6., Linf 1/5 and far on digits test .first-6., Linf 1/3",
        "cheap": "the full budget and cheap, worst case with the reduced one",
    }.items():
        with pytest.raises(UserError, match=words):
            compare(out, "plain", name)
    with pytest.raises(UserError, match=r"15 \+ 4 draws and few, pgd .*by 15 \+ 2"):
        compare(out, "noisy@apgd", "few@pgd")


def test_another_folder_s_rows_compare_if_its_data_is_the_same(tmp_path):
    one = identified(write(tmp_path / "one", deterministic()))
    two = identified(write(tmp_path / "two", deterministic()))
    (found,) = compare(one, "plain", "plain", other=two)
    assert (found.difference.value, found.decisions.p_value) == (0, 1)
    other = identified(write(tmp_path / "three", deterministic()), "r2")
    with pytest.raises(UserError, match="hold other versions of digits test first-6"):
        compare(one, "plain", "plain", other=other)
    labels = deterministic()
    for r in labels:
        r.records["label"] = r.records["label"] + 1
    with pytest.raises(UserError, match="other labels"):
        compare(one, "plain", "plain", other=identified(write(tmp_path / "four", labels)))


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ("plain", "plain", "compared with itself"),
        ("plian", "noisy", "did you mean plain"),
        ("plain@apdg", "noisy", "unknown row of plain"),
        ("plain", "other", "unknown row of other"),
    ],
)
def test_rows_that_are_not_there_are_refused(tmp_path, a, b, words):
    out = write(tmp_path / "out", [*deterministic(), *stochastic(), *deterministic("other")[:2]])
    with pytest.raises(UserError, match=words) as refused:
        compare(out, a, b)
    assert "\n" not in str(refused.value)


def test_one_of_several_views_has_to_be_named(tmp_path):
    views = [result(line("plain", "pgd", view=v), [1, 0, 1, 0, 1, 0]) for v in ("exact, 2 EOT", "bpda, 2 EOT")]
    out = write(tmp_path / "out", [*deterministic(), *views])
    with pytest.raises(UserError, match="names several rows of plain"):
        compare(out, "plain@pgd", "plain@apgd")
    for name in ("plain@pgd (exact)", "plain@pgd (exact, 2 EOT)"):
        assert compare(out, name, "plain@apgd")[0].a.title == "plain, pgd (exact, 2 EOT)"


def test_a_whole_name_comes_before_a_part_of_one(tmp_path):
    views = [result(line("plain", "pgd", view=v), [1, 0, 1, 0, 1, 0]) for v in ("exact", "exact, seed known")]
    out = write(tmp_path / "out", [*deterministic(), *views])
    assert compare(out, "plain@pgd (exact)", "plain@apgd")[0].a.title == "plain, pgd (exact)"


@pytest.mark.parametrize("draws", [1, 3, 15])
def test_paired_intervals_cover_for_stochastic_defenses(draws):
    rng, covered = np.random.default_rng(0), 0
    for _ in range(400):
        p = rng.beta(1, 1, 120)
        a, b = rng.binomial(draws, p) / draws, rng.binomial(draws, p**2) / draws
        found = paired.paired_difference(a, b)
        covered += found.low <= 1 / 2 - 1 / 3 <= found.high
    assert 0.93 <= covered / 400 < 1


def test_paired_intervals_have_the_width_that_draws_alone_make():
    """Images that do not differ: a level of the draws on top of the images would count their variance twice."""
    rng, n, draws = np.random.default_rng(1), 4000, 3
    found = paired.paired_difference(rng.binomial(draws, 0.7, n) / draws, rng.binomial(draws, 0.4, n) / draws)
    deviation = ((0.7 * 0.3 + 0.4 * 0.6) / draws / n) ** 0.5
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * deviation, rel=0.05)
