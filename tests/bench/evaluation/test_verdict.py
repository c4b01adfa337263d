"""Views and verdicts of awkward defenses."""

import pytest
import torch
from boards import MODELS
from torch import nn

from bench import benchmark
from bench.evaluation.model_checks import check_model
from bench.evaluation.verdict import verdict
from bench.evaluation.view import attack_view
from bench.spec.view import ViewSpec
from defenses import load_model
from defenses.core.defense import Defense, UserModule
from defenses.core.noise import Draw
from defenses.data.dataset import load_dataset
from defenses.utils.errors import UserError


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
    clean = frame[frame["attack"] == "none"].set_index("index")
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
