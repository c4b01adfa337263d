"""Denoising score matching in continuous time: the loss on data whose best predictor is known, and short trainings."""

import pytest
import torch
from gaussian_diffusion import MU, Exact, S

from defenses.data.dataset import load_dataset
from defenses.networks.registry import build_network
from defenses.training.loop import fit
from defenses.training.objective import Material
from defenses.training.objectives.score_sde import ScoreSDE
from defenses.training.phases import Phase
from defenses.training.plan import Plan
from defenses.training.recipe import load_recipe
from defenses.utils.errors import UserError


class Known(Exact):
    """With a parameter, so that there is something to average."""

    def __init__(self, sde):
        super().__init__(sde)
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, u, t):
        return self.scale * super().forward(u, t)


def gaussian(sde, n=4000):
    u = MU + S * torch.randn(n, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    x = sde.decode(u)
    return Material(x, torch.zeros(n), x[:500], torch.zeros(500), lambda name: None)


@pytest.mark.parametrize("name", ["ve", "vp", "subvp"])
def test_loss_of_the_exact_predictor_is_the_least(name):
    """E[(z - E[z|x])^2] = m^2 s^2 / (m^2 s^2 + std^2), the mean over t; at the exact predictor its slope is zero."""
    network = Known(name)
    objective = ScoreSDE(network, gaussian(network.sde), 0, {})
    t = torch.linspace(1e-5, 1, 20001)
    signal, noise = network.sde.mean(t) ** 2 * S**2, network.sde.std(t) ** 2
    loss = objective.loss(torch.arange(4000), 0)
    assert float(loss) == pytest.approx(float((signal / (signal + noise)).mean()), rel=0.05)
    (slope,) = torch.autograd.grad(loss, network.scale)
    assert abs(float(slope)) < 0.05


@pytest.mark.parametrize("sde", ["ve", "vp", "subvp"])
def test_short_training_on_digits(sde, tmp_path):
    """The average of 400 steps predicts noise far better than nothing does, whose loss is 1."""
    train, held = load_dataset("digits", "train"), load_dataset("digits", "validation")
    data = Material(train.x, train.y, held.x, held.y, lambda name: None)
    network = build_network("noise-mlp", hidden=128, depth=2, sde=sde, seed=1)
    objective = ScoreSDE(network, data, 0, {"ema": 0.99})
    result = fit(
        objective, Plan(128, (Phase(400, "adam", 2e-3),), 400, 1000, 0, "x"), tmp_path / "c.pt", progress=False
    )
    assert result.history[-1]["dsm_ema"] < {"ve": 0.5, "vp": 0.25, "subvp": 0.45}[sde]
    for name, average in objective.average.items():
        assert torch.equal(result.weights[name], average)


def test_gradients_are_clipped():
    network = build_network("noise-mlp", hidden=16)
    objective = ScoreSDE(network, gaussian(network.sde, 10), 0, {"clip": 0.5})
    for p in network.parameters():
        p.grad = torch.ones_like(p)
    objective.before(0)
    norm = torch.stack([p.grad.norm() for p in network.parameters()]).norm()
    assert float(norm) == pytest.approx(0.5, rel=1e-4)


def test_bad_recipes():
    data = gaussian(Exact().sde, 10)
    with pytest.raises(UserError, match='"score-mlp", a score network; it must be a noise predictor: ncsnpp'):
        load_recipe("score-sde", "digits", {"network.kind": "score-mlp"})
    with pytest.raises(UserError, match="clip"):
        ScoreSDE(build_network("noise-mlp", size=2), data, 0, {"clip": 0})
    with pytest.raises(UserError, match="ship"):
        ScoreSDE(build_network("noise-mlp", size=2), data, 0, {"ship": "rwa"})
    with pytest.raises(UserError, match="did you mean flip"):
        ScoreSDE(build_network("noise-mlp", size=2), data, 0, {"flp": True})
