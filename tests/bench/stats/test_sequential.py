"""Sequential verdicts: the same draws, the same decisions, fewer draws, and no counts."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from boards import MODELS
from hypothesis import given, settings
from hypothesis import strategies as st
from models import AddNoise, classifier, images, labels_of
from scipy.stats import betabinom

from bench import load_draws, load_results
from bench.evaluation.sequential_verdict import sequential_verdict
from bench.evaluation.verdict import verdict
from bench.stats import proportions, voting
from bench.stats.sequential import Decisions, Sequential
from defenses.core.defense import Defense, Prediction, Purified, UserModule
from defenses.core.noise import Draw
from defenses.utils.errors import UserError

COMMITTED = "results/digits-linf"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n_max": 64}, "odd number, as 65"),
        ({"n_max": 0}, "take 1 to"),
        ({"n_max": 9, "error": 0.0}, "error rate 0.0"),
        ({"n_max": 9, "error": 0.5}, "error rate 0.5"),
        ({"n_max": 9, "error": float("nan")}, "error rate nan"),
        ({"n_max": 9, "m": 10}, "10 submissions cannot be judged by 9 draws"),
        ({"n_max": 9, "m": 0}, "0 submissions"),
    ],
)
def test_rules_that_make_no_sense_are_refused_in_one_line(arguments, words):
    with pytest.raises(UserError, match=words) as refused:
        Sequential(**arguments)
    assert "\n" not in str(refused.value)


def test_bounds_are_the_predictive_probability():
    rule = Sequential(21, 0.03)
    upper, lower = rule.bounds
    for n in range(1, 21):
        c = np.arange(n + 1)
        chance = betabinom.sf(rule.need - 1 - c, 21 - n, 1 + c, 1 + n - c)  # the others, under an even spread
        assert np.array_equal(c >= upper[n], 1 - chance <= 0.03)
        assert np.array_equal(c <= lower[n], chance <= 0.03)
    assert (upper[21], lower[21]) == (11, 10)
    assert upper[0] == 1
    assert lower[0] == -1
    assert rule.first == min(n for n in range(1, 22) if upper[n] <= n)


def test_exact_figures_are_those_of_all_orders():
    rule = Sequential(9, 0.1)
    wrong, draws = [], []
    for k in range(10):
        rows = np.zeros((math.comb(9, k), 9), bool)
        for row, places in zip(rows, itertools.combinations(range(9), k), strict=True):
            row[list(places)] = True
        decisions = rule.decide(rows)
        assert not decisions.undecided.any()
        wrong.append(Fraction(int((decisions.right != (k > 4)).sum()), len(rows)))
        draws.append(decisions.drawn.mean())
    assert rule.worst_error == pytest.approx(float(max(wrong)))
    assert rule.mean_error == pytest.approx(float(sum(wrong) / 10))
    assert rule.mean_draws == pytest.approx(np.mean(draws))


@pytest.mark.parametrize("n_max", [9, 65, 151])
@pytest.mark.parametrize("error", [0.001, 0.01, 0.1])
@pytest.mark.parametrize("m", [None, 1, 5])
def test_an_even_spread_errs_at_most_as_said(n_max, error, m):
    rule = Sequential(n_max, error, m)
    assert rule.mean_error <= error
    assert rule.mean_error <= rule.worst_error
    assert rule.mean_draws < n_max


def test_at_65_draws_a_third_is_enough():
    rule = Sequential(65)
    assert rule.mean_draws <= 65 / 3
    assert rule.mean_error <= 0.01
    rng = np.random.default_rng(0)
    correct = rng.random((20_000, 65)) < rng.random((20_000, 1))
    decisions = rule.decide(correct)
    assert (decisions.right == (correct.sum(1) > 32)).mean() >= 0.99
    assert decisions.drawn.mean() <= 65 / 3


def test_on_the_committed_draws_a_third_is_enough():
    frame = load_draws(COMMITTED)
    labels = load_results(COMMITTED).drop_duplicates("image").set_index("image")["label"]
    frame = frame[frame["held_out"] & frame["defense"].isin(["adp", "ebm-mcmc"])]
    frame = frame.sort_values(["cell", "image", "draw"])
    pred = np.where(frame["rejected"], -1, frame["pred"]).reshape(-1, 65)
    label = labels.loc[frame["image"].to_numpy()[::65]].to_numpy()
    decisions = Sequential(65).decide_votes(pred, label)
    assert len(pred) == 20 * 500
    assert (decisions.right == voting.majority(pred, label)).mean() >= 0.999
    assert decisions.drawn.mean() <= 65 / 5


prefixes = st.lists(st.booleans(), min_size=1, max_size=15)


@given(prefixes, st.integers(1, 15), st.sampled_from([0.01, 0.1, 0.3]))
def test_a_prefix_decides_for_all_its_continuations(draws, more, error):
    rule = Sequential(15, error)
    begin, whole = rule.decide([draws]), rule.decide([(draws + [True] * more)[:15]])
    if not begin.undecided[0]:
        assert (begin.right[0], begin.drawn[0]) == (whole.right[0], whole.drawn[0])
    else:
        assert begin.drawn[0] == len(draws)
        assert not begin.right[0]


@given(st.lists(st.booleans(), min_size=15, max_size=15))
def test_a_rule_hardly_ever_wrong_says_what_the_full_count_says(draws):
    decisions = Sequential(15, 1e-9).decide([draws])
    assert decisions.right[0] == (sum(draws) > 7)
    assert not decisions.undecided[0]
    # It stops no later than when the rest cannot change the majority.
    assert decisions.drawn[0] <= next(n for n in range(1, 16) if max(sum(draws[:n]), n - sum(draws[:n])) > 7)


@given(st.lists(st.lists(st.integers(-1, 4), min_size=9, max_size=9), min_size=1, max_size=6), st.data())
def test_votes_of_several_classes_end_as_the_majority_does(pred, data):
    label = data.draw(st.lists(st.integers(0, 4), min_size=len(pred), max_size=len(pred)))
    decisions = Sequential(9, 1e-9).decide_votes(pred, label)
    assert decisions.right.tolist() == voting.majority(pred, label).tolist()
    assert not decisions.undecided.any()
    two = np.where(np.array(pred) == np.array(label)[:, None], np.array(label)[:, None], 9)
    votes, plain = (Sequential(9).decide_votes(two, label), Sequential(9).decide(two == np.array(label)[:, None]))
    assert votes.right.tolist() == plain.right.tolist()
    assert votes.drawn.tolist() == plain.drawn.tolist()


@pytest.mark.parametrize(("classes", "spread"), [(3, 0.5), (10, 0.2), (10, 1.0)])
def test_votes_of_several_classes_agree_with_the_full_count(classes, spread):
    rng = np.random.default_rng(1)
    shares = rng.dirichlet(np.full(classes, spread), 3000)
    pred = (rng.random((3000, 65))[:, :, None] > shares.cumsum(1)[:, None]).sum(2)
    label = np.argsort(-shares, 1)[np.arange(3000), rng.integers(0, 2, 3000)]  # the likeliest class, or the next
    decisions = Sequential(65).decide_votes(pred, label)
    assert (decisions.right == voting.majority(pred, label)).mean() >= 0.99


def test_a_screening_asks_for_an_even_chance_of_surviving():
    rule = Sequential(65, 0.01, m=15)
    assert proportions.rob_at_m(rule.need, 65, 15) >= 0.5 > proportions.rob_at_m(rule.need - 1, 65, 15)
    assert Sequential(65, m=1).need == Sequential(65).need
    rng = np.random.default_rng(2)
    correct = rng.random((5000, 65)) < rng.random((5000, 1))
    decisions = rule.decide(correct)
    assert (decisions.right == (proportions.rob_at_m(correct.sum(1), 65, 15) >= 0.5)).mean() >= 0.99
    assert decisions.drawn.mean() < 65 / 5


def test_decisions_are_no_counts():
    decisions = Sequential(9).decide(np.ones((4, 9), bool))
    assert set(Decisions.__dataclass_fields__) == {"right", "undecided", "drawn"}
    assert decisions.right.dtype == decisions.undecided.dtype == bool
    for use in (
        lambda: proportions.rob_at_m(decisions, 9, 5),
        lambda: proportions.wilson(decisions, 9),
        lambda: decisions / 9,
    ):  # type: ignore
        with pytest.raises(TypeError):
            use()


@pytest.mark.parametrize("given_", [np.ones((2, 10), bool), np.ones(3, bool), np.ones((2, 0), bool), [[1, 0]]])
def test_draws_of_another_kind_are_refused(given_):
    with pytest.raises(ValueError, match="1 to 9 draws"):
        Sequential(9).decide(given_)
    with pytest.raises(ValueError, match="majority rule"):
        Sequential(9, m=2).decide_votes([[1]], [1])


def noisy(sigma=0.2):
    return Purified(AddNoise(sigma), classifier())


def setting(n=40):
    x = images(n)
    return x, labels_of(classifier(), x), torch.arange(n) * 7 + 3


class Refuses(Defense):
    """Refuses in a third of the draws; of a marked image some are no number. Remembers how many it was asked for."""

    stochastic = True

    def __init__(self):
        super().__init__()
        self.asked = []

    def logits(self, x, noise, *, gradient="exact", runs=None):
        raise AssertionError("only decisions are asked for")

    def decide(self, x, noise):
        u = noise.draw(Draw((2,), "uniform"))
        self.asked.append(len(x))
        logits = torch.stack([x[:, 0, 0, 0], u[:, 0]], 1)
        lost = (x[:, :1, 0, 1] > 2) & (u[:, :1] < 0.3)
        return Prediction(torch.where(lost, torch.nan, logits), u[:, 1] < 0.3)


@pytest.mark.parametrize("m", [None, 4])
@pytest.mark.parametrize("ahead", [1, 4])
@pytest.mark.parametrize("batch", [2048, 7])
def test_images_meet_the_draws_of_the_full_count(m, ahead, batch):
    x, y, indices = setting()
    rule = Sequential(33, 0.02, m)
    decisions = sequential_verdict(noisy(), x, y, indices, rule, 5, ahead=ahead, batch=batch)
    full = verdict(noisy(), x, indices, draws=33, selection=6, seed=5)
    pred = full.predictions[full.held_out].T.numpy()
    expected = rule.decide(pred == y.numpy()[:, None]) if m else rule.decide_votes(pred, y.numpy())
    assert decisions.right.tolist() == expected.right.tolist()
    assert not decisions.undecided.any()
    assert 0 < decisions.right.mean() < 1
    assert (decisions.drawn >= expected.drawn).all()
    assert (decisions.drawn < expected.drawn + ahead).all() or ahead > 1
    assert decisions.drawn.sum() < 33 * len(x) * 0.7


def test_decided_images_leave_the_batch():
    x, y, indices = setting(30)
    x[:, 0, 0, 0] = torch.linspace(-0.2, 1.2, 30)  # logits [x, uniform]
    defense, rule = Refuses(), Sequential(33, 0.02)
    decisions = sequential_verdict(defense, x, torch.zeros_like(y), indices, rule, 0)
    assert sum(defense.asked) == decisions.drawn.sum()
    assert defense.asked[0] == 30 * rule.first
    assert defense.asked == sorted(defense.asked, reverse=True)
    full = verdict(Refuses(), x, indices, draws=33, selection=0, seed=0)
    pred = torch.where(full.rejected, -1, full.predictions).T.numpy()
    assert decisions.right.tolist() == rule.decide_votes(pred, np.zeros(30, int)).right.tolist()


def test_a_draw_that_is_not_finite_leaves_its_image_undecided():
    x, y, indices = setting(12)
    x[:, 0, 0, 0] = 0.5
    x[4, 0, 0, 1] = 3.0
    decisions = sequential_verdict(Refuses(), x, y, indices, Sequential(33, 0.02), 0)
    assert np.flatnonzero(decisions.undecided).tolist() == [4]
    assert not decisions.right[4]


def test_a_deterministic_defense_is_asked_once():
    x, y, indices = setting(10)
    y[3] += 1
    decisions = sequential_verdict(classifier(), x, y % 10, indices, Sequential(65), 0)
    assert decisions.right.tolist() == [i != 3 for i in range(10)]
    assert decisions.drawn.tolist() == [1] * 10


def test_a_random_user_module_keeps_its_batch_and_so_its_draws():
    space: dict = {"__name__": "models_of_test"}
    exec(compile(MODELS, "models.py", "exec"), space)
    user_module = UserModule(space["GlobalNoise"](), stochastic=True)
    from defenses.data.dataset import load_dataset

    data = load_dataset("digits")
    x, y, indices = data.x[:60], data.y[:60], torch.arange(60)
    rule = Sequential(9, 0.1)
    decisions = sequential_verdict(user_module, x, y, indices, rule, 0)
    full = verdict(user_module, x, indices, draws=9, selection=3, seed=0)
    expected = rule.decide_votes(full.predictions[full.held_out].T.numpy(), y.numpy())
    assert decisions.right.tolist() == expected.right.tolist()
    assert len(set(decisions.drawn.tolist())) == 1


@settings(max_examples=10)
@given(st.integers(0, 1000), st.permutations(range(12)))
def test_the_order_of_images_changes_nothing(seed, order):
    x, y, indices = setting(12)
    rule, at = Sequential(9, 0.1), torch.tensor(order)
    one = sequential_verdict(noisy(), x, y, indices, rule, seed)
    other = sequential_verdict(noisy(), x[at], y[at], indices[at], rule, seed)
    assert one.right[order].tolist() == other.right.tolist()
    assert one.drawn[order].tolist() == other.drawn.tolist()
