"""When two judgements of an image agree, are a tie, or differ."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from boards import purebench_here
from torch import nn

from bench.analysis.verdict_agreement import compare
from bench.audit.reproduction.report import Verification, VerificationRow
from defenses.core.detector import Guard


def judgement(
    gap: float,
    *,
    correct: int = 1,
    pred: int = 3,
    linf: float = 0.1,
    status: str = "ok",
    score: float | None = None,
    refused: bool = False,
):
    """Records and draws of one image of one draw."""
    counts = {"index": 5, "correct": correct, "draws": 1, "correct_sel": 0, "draws_sel": 0, "hits": 0}
    counts["rejected"] = int(refused)
    flags = {"in_box": True, "in_ball": True, "finite": True, "beyond": False, "status": status}
    records = pd.DataFrame([counts | flags | {"linf": linf, "l2": 1.0, "l1": 2.0, "l0": 3.0}])
    logits = np.array([-9.0, 0.0, -gap], np.float16)
    draw = {"index": 5, "draw": 0, "pred": pred, "margin": gap, "rejected": refused, "logits": logits}
    return records, pd.DataFrame([draw if score is None else draw | {"score": score}])


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (judgement(1.0), judgement(1.0), "agree"),
        (judgement(1e-6), judgement(1e-6, correct=0, pred=2), "ties"),
        (judgement(1e-3), judgement(1e-6, correct=0, pred=2), "ties"),  # a tie in either of the two
        (judgement(1e-3), judgement(1e-3, correct=0, pred=2), "differ"),
        (judgement(1e-6), judgement(1e-6, correct=0), "differ"),  # a count without a draw that explains it
        (judgement(1.0), judgement(1.0, linf=0.2), "differ"),
        (judgement(1.0), judgement(1.0, status="error"), "differ"),
    ],
)
def test_what_is_a_tie_and_what_a_difference(before, after, kind):
    row = VerificationRow(("d", "a", "v", "t"))
    row.add(compare(before[0], after[0], before[1], after[1]))
    assert getattr(row, kind) == 1
    assert Verification(rows=[row]).agrees == (kind != "differ")


def refusals(*scores: float, threshold: float = 40.0, pred: int = 3, gap: float = 1.0):
    """Two judgements of an image by a detector, refused above the threshold of the day: that of the first is 40."""
    first, second = (
        judgement(gap, correct=int(score <= at), score=score, refused=score > at, pred=said)
        for score, at, said in zip(scores, (40.0, threshold), (3, pred), strict=True)
    )
    return first, second, Guard(nn.Identity(), None, threshold=threshold, scale=3.0)


@pytest.mark.parametrize(
    ("judged", "kind"),
    [
        (refusals(39.0, 38.9), "agree"),
        (refusals(40.0001, 40.0), "ties"),
        (refusals(40.0, 40.0001), "ties"),
        (refusals(40.001, 39.999), "differ"),
        (refusals(41.0, 40.0), "ties"),  # a tie in either of the two
        (refusals(41.0, 39.0), "differ"),
        (refusals(40.5, 40.5, threshold=41.0), "differ"),  # the threshold has moved, no score has
        (refusals(40.0001, 40.0, threshold=40.00005), "ties"),
        (refusals(40.0001, 40.0, pred=2), "differ"),  # the class is another too, and no tie
        (refusals(40.0001, 40.0, pred=2, gap=1e-6), "ties"),
    ],
)
def test_refusals_at_the_threshold_are_ties(judged, kind):
    (before, draws), (after, draws_after), guard = judged
    row = VerificationRow(("d", "a", "v", "t"))
    row.add(compare(before, after, draws, draws_after, guard=guard))
    assert getattr(row, kind) == 1
    if draws["rejected"][0] != draws_after["rejected"][0]:
        row = VerificationRow(("d", "a", "v", "t"))
        row.add(compare(before, after, draws, draws_after))
        assert row.differ == 1, "without a detector nothing explains a refusal"


BOARD = """
dataset = "digits"
indices = "first-10"
[threat]
norm = "Linf"
eps = "1/5"
[verdict]
draws = 1
[[defense]]
name = "score-norm"
[[attack]]
name = "foolbox:LinfFastGradientAttack"
"""


def test_the_detector_of_today_says_where_its_threshold_is(tmp_path, monkeypatch):
    """Every score is moved across the threshold, by rounding or by more."""
    from bench.audit.reproduction.verify import VerifyOptions
    from bench.audit.reproduction.verify import verify as verified

    board = tmp_path / "board.toml"
    board.write_text(BOARD)
    result = purebench_here("run", board, "--out", tmp_path / "out", "--quiet")
    assert result.returncode == 0, result.stderr
    exact, found = Guard.scores, verified(tmp_path / "out", VerifyOptions())
    assert found.agrees
    assert found.count("agree") == found.judged == 3
    for factor, kind in ((3e-6, "ties"), (1e-3, "differ")):

        def moved(self, x, noise, factor=factor):
            way = torch.where(exact(self, x, noise) > self.threshold, -1.0, 1.0)
            return self.threshold * (1 + factor * way)

        monkeypatch.setattr(Guard, "scores", moved)
        found = verified(tmp_path / "out", VerifyOptions())
        assert found.count(kind) == found.judged == 3
        assert found.agrees == (kind == "ties")


def test_nothing_judged_is_no_agreement():
    assert not Verification().agrees
