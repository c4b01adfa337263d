"""Views and statuses in plain words: every label that a view can have, and nothing else is changed."""

import itertools
import json
import re

import pytest
from boards import ROOT

from bench.spec.cell import DEPLOYED, GIVEN
from bench.spec.view import OUTPUTS, ViewSpec
from bench.spec.view_words import status_words, view_words
from defenses.core.gradient_modes import MODES, NUMBERS

JARGON = re.compile(r"EOT|\bx\b|bpda|prob\b|[a-z]-[a-z]|:\d|\bS\b")


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("exact", "exact gradients"),
        ("blind", "blind to the defense"),
        ("exact, 8 EOT x 1 run", "exact gradients, mean of 8 draws"),
        ("exact, 1 EOT x 1 run", "exact gradients, one draw"),
        ("exact, 8 EOT", "exact gradients, mean of 8 draws"),
        ("bpda, 1 EOT x S runs", "BPDA gradients, as deployed"),
        ("bpda, 2-16 EOT x S runs", "BPDA gradients, mean of 2 to 16 predictions as deployed"),
        ("exact, 4 EOT x 3 runs", "exact gradients, mean of 4 draws of 3 runs each"),
        ("joint-full, 1 EOT x 15 runs", "signs of BPDA and of what purification changes, mean of 15 runs"),
        ("exact, 1-16 EOT x S runs", "exact gradients, mean of 1 to 16 predictions as deployed"),
        ("bpda, 20 EOT x 1 run, log-mean-prob", "BPDA gradients, mean of 20 draws, log of mean probabilities"),
        ("exact, seed known", "exact gradients, its noise known"),
        ("surrogate:25", "gradients of a shorter purifier, 25 steps"),
        ("smooth:1/100, 4 EOT x 1 run", "gradients of smoothed activations, width 1/100, mean of 4 draws"),
        (DEPLOYED, "as deployed"),
        (GIVEN, "images from a file"),
        ("", ""),
        ("exactly, my own", "exactly, my own"),
    ],
)
def test_words_of_a_view(label, words):
    assert view_words(label) == words


def test_every_view_has_words_of_its_own_without_jargon():
    modes = [f"{mode}:3" if mode in NUMBERS and number else mode for mode in MODES for number in (False, True)]
    labels = {ViewSpec(mode).label(stochastic=False) for mode in modes}
    for mode, eot, runs, output in itertools.product(modes, (1, 8), (None, 1, 3), OUTPUTS):
        labels.add(ViewSpec(mode, eot, runs, output).label(stochastic=True))
    words = {label: view_words(label) for label in labels}
    assert [text for text in words.values() if JARGON.search(text)] == []
    assert len({*words.values()}) == len(labels)


def test_views_of_committed_boards_are_told_apart_as_by_their_labels():
    plans = [file.read_text().splitlines() for file in sorted((ROOT / "results").glob("*/plan.jsonl"))]
    views = {json.loads(line)["view"] for plan in plans for line in plan}
    assert len(views) > 20
    words = {view: view_words(view) for view in views}
    assert [view for view, text in words.items() if JARGON.search(text)] == []
    same = {view: {other for other in views if words[other] == words[view]} for view in views}
    # Where a prediction has one run, a label names no runs.
    assert all(len({re.sub(" x 1 run", "", view) for view in group}) == 1 for group in same.values())


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("ok", "ok"),
        ("partial: without (all of) none (deployed)", "partial: not complete: clean images"),
        (
            "partial: without (all of) square (exact), apgd (bpda, 8 EOT x 1 run) and 2 more",
            "partial: not complete: square (exact gradients), apgd (BPDA gradients, mean of 8 draws) and 2 more",
        ),
        (
            "partial: without (all of) training seed 1 (error: RuntimeError: boom)",
            "partial: not complete: training seed 1 (error: RuntimeError: boom)",
        ),
        ("error: f(x) (exactly)", "error: f(x) (exactly)"),
    ],
)
def test_words_of_a_status(status, words):
    assert status_words(status) == words
