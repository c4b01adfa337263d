"""From data to table where the answer is known exactly: a linear classifier of points well inside the box."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from bench import benchmark, load_results, summary
from bench.spec.view import ViewSpec
from defenses.core.defense import Classifier, Defense
from defenses.core.noise import Draw

N, SHAPE = 120, (1, 3, 3)
W = torch.tensor([0.5, -1.0, 0.25, 0.75, -0.5, 1.0, -0.25, 0.5, -0.75])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Points about the middle of the box, a few of them on the wrong side."""
    generator = np.random.default_rng(0)
    x = 0.5 + 0.12 * generator.standard_normal((N, *SHAPE)).clip(-2, 2)
    margin = (x - 0.5).reshape(N, -1) @ W.numpy().astype(np.float64)
    y = (margin > 0).astype(np.int64)
    y[:5] = 1 - y[:5]
    path = tmp_path_factory.mktemp("data") / "points.npz"
    np.savez(path, x_test=x.astype(np.float32), y_test=y, num_classes=2)
    return str(path), np.where(y == 1, margin, -margin)


def linear() -> nn.Module:
    layer = nn.Linear(9, 2)
    layer.weight.data = torch.stack([-W / 2, W / 2])
    layer.bias.data = torch.tensor([0.25, -0.25]) * W.sum()
    return nn.Sequential(nn.Flatten(), layer).eval()


CASES = [
    ("Linf", "1/20", float(W.abs().sum()), "foolbox:LinfFastGradientAttack", {}),
    ("Linf", "1/20", float(W.abs().sum()), "autoattack:apgd-ce", {"n_iter": 20}),
    ("Linf", "1/20", float(W.abs().sum()), "torchattacks:PGD", {"steps": 20}),
    ("Linf", "1/20", float(W.abs().sum()), "foolbox:LinfDeepFoolAttack", {}),
    ("L2", "1/10", float(W.norm()), "foolbox:L2FastGradientAttack", {}),
    ("L2", "1/10", float(W.norm()), "torchattacks:PGDL2", {"steps": 20}),
    ("L2", "1/10", float(W.norm()), "foolbox:L2CarliniWagnerAttack", {"steps": 200, "stepsize": 0.05}),
]


@pytest.mark.parametrize(("norm", "eps", "dual", "attack", "params"), CASES)
def test_robust_accuracy_is_exact(data, tmp_path, norm, eps, dual, attack, params):
    path, margin = data
    radius = margin / dual  # the distance to the border, negative where the point is on the wrong side
    a, b = (int(v) for v in eps.split("/"))
    out = tmp_path / "out"
    attacks = [{"name": attack, **params}]
    benchmark(linear(), dataset=path, threat_model=norm, eps=eps, attacks=attacks, batch_size=50, out=out)
    rows = summary(out).set_index("attack")
    assert rows.loc["none", "robust_mean"] == pytest.approx((radius > 0).mean())
    exact = (radius > a / b).mean()
    assert 0.05 < exact < 0.9
    frame = load_results(out)
    # A minimisation attack steps a little over the border, and so misses what lies just inside the ball.
    most = (radius > a / b / 1.03).mean() if frame["minimisation"].any() else exact
    assert exact - 1e-9 <= rows.loc[attack, "robust_mean"] <= most + 1e-9
    assert rows.loc["worst case", "robust_mean"] == rows.loc[attack, "robust_mean"]
    right = (radius > 0).sum()
    broken = right - rows.loc[attack, "robust_mean"] * N
    assert rows.loc[attack, "asr"] == pytest.approx(broken / right)
    hit = frame[(frame["attack"] == attack) & frame["succeeded"]]
    if frame["minimisation"].any():
        ratio = hit[norm.lower()].to_numpy() / radius[hit["image"].to_numpy()]
        assert ratio.min() > 0.999
        assert np.median(ratio) < 1.25


class NoisyLinear(Defense):
    """w.(x + sigma z - 1/2): right with probability Phi(margin / (sigma |w|))."""

    stochastic = True
    num_classes = 2

    def __init__(self, sigma: float):
        super().__init__()
        self.inner = Classifier(linear(), num_classes=2, input_shape=SHAPE)
        self.sigma = sigma
        self.train(False)

    def logits(self, x, noise, *, gradient="exact", runs=None):
        return self.inner.logits(x + self.sigma * noise.draw(Draw(tuple(x.shape[1:]))), noise)


def test_a_noisy_linear_defense_has_its_known_accuracy_and_rob_m(data, tmp_path):
    """FGSM is the optimal attack of a linear model also in expectation."""
    path, margin = data
    sigma, eps, draws = 0.1, 1 / 20, 201
    out = tmp_path / "out"
    benchmark(
        NoisyLinear(sigma),
        dataset=path,
        eps="1/20",
        attacks=["foolbox:LinfFastGradientAttack"],
        draws=draws,
        selection=9,
        views=[ViewSpec(eot=4)],
        out=out,
    )
    left = (margin - eps * float(W.abs().sum())) / (sigma * float(W.norm()))
    p = 0.5 * (1 + np.vectorize(math.erf)(left / math.sqrt(2)))
    row = summary(out, m=(5,)).set_index("attack").loc["foolbox:LinfFastGradientAttack"]
    noise = math.sqrt((p * (1 - p)).sum() / draws) / N
    assert abs(row["robust_mean"] - p.mean()) < 4 * noise
    assert abs(row["rob_m5"] - (p**5).mean()) < 4 * 5 * noise
    assert abs(row["majority"] - (p > 0.5).mean()) <= 3 / N  # images with p near 1/2 may fall either way
