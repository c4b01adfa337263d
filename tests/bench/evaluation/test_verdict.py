"""Views and verdicts of awkward defenses."""

from dataclasses import FrozenInstanceError

import pytest
import torch
from boards import MODELS
from torch import nn

from bench import benchmark
from bench.evaluation.batching import BatchLimit
from bench.evaluation.model_checks import check_model
from bench.evaluation.verdict import Draws, known_noise, verdict, verdict_noise
from bench.evaluation.view import attack_view
from bench.spec.view import ViewSpec
from defenses import load_model
from defenses.core.defense import Defense, Prediction, UserModule
from defenses.core.noise import Draw, Noise
from defenses.data.dataset import load_dataset
from defenses.utils.errors import UserError

CPU = torch.device("cpu")
STREAM = 0x56455244  # of all verdicts; results that are stored were drawn from it


class Drops(Defense):
    """Logits are pixels and noise, a row's own; refuses dark images, and scores by the noise; notes its calls."""

    def __init__(self, stochastic=True, room=1 << 30):
        super().__init__()
        self.stochastic, self.room, self.rows, self.calls = stochastic, room, 1 << 30, []

    def logits(self, x, noise, *, gradient="exact", runs=None):
        return x.flatten(1) + self.stochastic * noise.draw(Draw((x[0].numel(),)))

    def decide(self, x, noise):
        if len(x) > self.room:
            raise torch.OutOfMemoryError
        self.calls.append(len(x))
        z = self.logits(x, noise).double()
        return Prediction(z, z[:, 0] < 0.2, scores=z[:, 1])


class OneMask(nn.Module):
    """One draw for the whole batch."""

    def forward(self, x):
        return torch.randn(1).expand(len(x), 10) * torch.arange(10)


class Sometimes(Defense):
    """NaN for some images under some draws."""

    stochastic = True

    def logits(self, x, noise, *, gradient="exact", runs=None):
        u = noise.draw(Draw((1,), "uniform"))
        z = 9 * x.flatten(1)[:, :10] - 1
        return torch.where((u < 0.05) & (x[:, 0, 4, 4] > 0.5)[:, None], torch.nan, z)


def test_draws_by_hand():
    """Two draws of three images of four classes: of the first image the label wins by 1, then loses by 2."""
    logits = torch.tensor([
        [[1.0, 3.0, 2.0, 0.0], [5.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 9.0]],
        [[4.0, 2.0, 1.0, 3.0], [5.0, 4.0, 0.0, 0.0], [0.0, 7.0, 0.0, 9.0]],
    ])  # fmt: skip
    none, held = torch.zeros(2, 3, dtype=torch.bool), torch.tensor([False, True])
    draws = Draws(logits, none, held)
    assert draws.scores is None
    assert draws.predictions.tolist() == [[1, 0, 3], [0, 0, 3]]
    assert draws.margins(torch.tensor([1, 0, 1])).tolist() == [[1, 5, -9], [-2, 1, -2]]
    assert draws.finite.tolist() == [True] * 3
    for bad in (torch.nan, torch.inf):
        one = logits.index_put((torch.tensor(1), torch.tensor(2), torch.tensor(0)), torch.tensor(bad))
        assert Draws(one, none, held).finite.tolist() == [True, True, False]
        scores = torch.tensor([[0.0, bad, 0.0], [0.0, 1.0, 2.0]])
        assert Draws(one, none, held, scores).finite.tolist() == [True, False, False]
    with pytest.raises(FrozenInstanceError):
        draws.scores = logits


def test_streams_of_verdicts_stay_what_they_are():
    """Another stream would make other results of the same board, under the same keys."""
    index = torch.tensor([3, 0, 7])
    assert torch.equal(verdict_noise(5, index, CPU).keys, Noise.of(5, index).child(STREAM).keys)
    assert torch.equal(known_noise(5, 4, CPU).keys, Noise.of(5, [0]).child(STREAM, 2).keys.expand(4, -1))
    assert known_noise(5, 0, CPU).keys.shape == (0, 2)


@pytest.mark.parametrize("batch", [1, 4, 2048])
def test_every_draw_is_the_decision_under_its_own_noise(batch):
    x, index, defense = torch.rand(5, 1, 2, 3), torch.tensor([4, 9, 0, 2, 1]), Drops()
    draws = verdict(defense, x, index, draws=3, selection=2, seed=6, batch=batch)
    assert max(defense.calls) == min(batch, 25)
    assert draws.held_out.tolist() == [False, False, True, True, True]
    assert draws.logits.dtype == draws.scores.dtype == torch.float32
    for d, stream in enumerate([(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]):
        alone = defense.decide(x, Noise.of(6, index).child(STREAM, *stream))
        assert torch.equal(draws.logits[d], alone.logits.float())
        assert torch.equal(draws.rejected[d], alone.rejected)
        assert torch.equal(draws.scores[d], alone.scores.float())
    assert draws.rejected.any()
    assert not draws.rejected.all()


def test_a_known_draw_is_one_whatever_was_asked_for():
    x, defense = torch.rand(5, 1, 2, 3), Drops()
    draws = verdict(defense, x, torch.arange(5), draws=3, selection=2, seed=6, batch=4, known=True)
    assert defense.calls == [4, 1]
    assert torch.equal(draws.logits[0], defense.logits(x, known_noise(6, 5, CPU)))
    assert draws.held_out.tolist() == [True]


def test_at_most_2048_rows_are_judged_at_once():
    defense = Drops()
    verdict(defense, torch.rand(1025, 1, 1, 2), torch.arange(1025), draws=1, selection=1, seed=0)
    assert defense.calls == [2048, 2]


@pytest.mark.parametrize("given", [False, True])
def test_memory_that_runs_out_lowers_the_defense_s_own_limit(given):
    defense = Drops(room=5)
    memory = BatchLimit(defense) if given else None
    verdict(defense, torch.rand(12, 1, 1, 2), torch.arange(12), draws=1, selection=0, seed=0, memory=memory)
    assert defense.rows == 3
    assert defense.calls == [3] * 4
    assert memory is None or memory.limit == 3


class Elsewhere(Defense):
    """Only tells where its images and noise lie."""

    stochastic = True

    def logits(self, x, noise, *, gradient="exact", runs=None):
        assert noise.keys.device == x.device
        return x.flatten(1) + noise.keys[:, :1]


@pytest.mark.parametrize("known", [False, True])
def test_all_is_computed_where_the_images_lie(known):
    """The device "meta" has no values, but as others it takes no part in computations of the CPU."""
    x = torch.empty(4, 1, 1, 2, device="meta")
    assert verdict_noise(5, torch.arange(4), x.device).keys.device == x.device
    assert known_noise(5, 4, x.device).keys.device == x.device
    draws = verdict(Elsewhere(), x, torch.arange(4), draws=2, selection=1, seed=0, known=known)
    assert draws.logits.device == draws.rejected.device == x.device


@pytest.mark.parametrize(
    ("stochastic", "known", "calls"),
    [(True, False, [6] * 3), (True, True, [1] * 6), (False, False, [4, 2]), (False, True, [1] * 6)],
)
def test_calls_of_a_user_module(stochastic, known, calls):
    """A random one draws for the block at once; where the seed is known, each image gets the draw it gets alone."""
    asked = []

    class Counts(nn.Module):
        def forward(self, x):
            asked.append(len(x))
            return x.flatten(1) + stochastic * torch.randn_like(x).flatten(1)

    defense = UserModule(Counts().eval(), stochastic=stochastic)
    draws = verdict(
        defense, torch.rand(6, 1, 1, 4), torch.arange(6), draws=2, selection=1, seed=0, batch=4, known=known
    )
    assert asked == calls
    assert draws.scores is None
    assert len(draws.logits) == (3 if len(calls) == 3 else 1)


def test_copies_of_a_user_module_do_not_share_a_draw():
    x = torch.rand(4, 1, 8, 8)
    spread = []
    for eot in (1, 64):
        with attack_view(UserModule(OneMask().eval(), stochastic=True), ViewSpec(eot=eot), seed=0) as (view, _):
            spread.append(torch.stack([view(x)[0, 9] for _ in range(60)]).std())
    assert spread[1] < spread[0] / 4


@pytest.mark.parametrize("rows", [8192, 6])
def test_a_deterministic_purifier_through_a_view(rows):
    """Images leave the batch; the view splits it; the forward is the deployed one."""
    defense = load_model("adp", sigma=0, tau="1/50", runs=2)
    x = load_dataset("digits", "validation").x[:10]
    with attack_view(defense, ViewSpec(), seed=0, rows=rows) as (view, _):
        whole = view(x)
        assert torch.allclose(view(x), whole, atol=1e-3)
        v = x.clone().requires_grad_()
        view(v).sum().backward()
    assert not defense.stochastic
    assert torch.isfinite(v.grad).all()
    draws = verdict(defense, x, torch.arange(10), draws=7, selection=2, seed=0)
    assert draws.logits.shape == (1, 10, 10)
    assert torch.allclose(draws.logits[0], whole, atol=1e-3)  # other batch sizes, and a step size that amplifies


def test_an_image_without_an_answer_has_no_verdict_and_others_have(tmp_path):
    path = tmp_path / "models.py"
    path.write_text(MODELS)
    with pytest.warns(UserWarning, match="not finite"):
        frame = benchmark(Sometimes(), n_examples=40, eps="1/10", draws=21, selection=5, attacks=[f"{path}:still"])
    clean = frame[frame["attack"] == "none"].set_index("image")
    at_risk = load_dataset("digits").x[:40, 0, 4, 4] > 0.5
    bad = clean["status"] == "error"
    assert bad.any()
    assert set(clean.index[bad]) <= set(torch.nonzero(at_risk).flatten().tolist())
    assert clean[bad]["accuracy"].isna().all()
    assert clean[~bad]["accuracy"].notna().all()


def test_uniform_noise_is_the_same_for_all_defenses(tmp_path):
    few = {"n_examples": 10, "eps": "1/10", "attacks": ["foolbox:LinfFastGradientAttack"]}
    sizes = [benchmark(name, **few).query("attack == 'uniform'")["l2"].tolist() for name in ("undefended", "pgd-at")]
    assert sizes[0] == sizes[1]


def test_large_logits_keep_their_vote(tmp_path):
    space: dict = {"__name__": "models_of_test"}
    exec(compile(MODELS, "models.py", "exec"), space)
    model = space["linear"]()
    model[1].bias.data += 1e5
    from bench import summary

    benchmark(model, n_examples=50, eps="1/4", attacks=["foolbox:LinfFastGradientAttack"], out=tmp_path / "out")
    rows = summary(tmp_path / "out")
    assert (rows["mean_logit"] == rows["robust_mean"]).all()


class Spoils(nn.Module):
    def forward(self, x):
        x.mul_(0.5)
        return x.flatten(1)[:, :10] - 1


class Own(nn.Module):
    """A private generator."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, x):
        return torch.randn(len(x), 10, generator=self.generator)


class Asserts(nn.Module):
    def forward(self, x):
        assert x.shape[-1] == 32, "need 32x32 images"


@pytest.mark.parametrize(
    ("module", "stochastic", "words"),
    [
        (Spoils(), False, "writes into the images"),
        (Own(), True, "generator of its own"),
        (Own(), False, "stochastic = true"),
        (Asserts(), False, "need 32x32 images"),
    ],
)
def test_what_is_wrong_with_a_model_is_said(module, stochastic, words):
    x = load_dataset("digits", "validation").x[:8]
    with pytest.raises(UserError, match=words):
        check_model(UserModule(module.eval(), stochastic=stochastic), x, 10, "it")
