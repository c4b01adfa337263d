"""A linear denoiser before a linear classifier: the best attack and its robust accuracy are known exactly.

Six steps u <- M u + sigma z_k, then w u + b: the margin is v x + b + tau z with v = (M^T)^6 w and
tau^2 = sigma^2 sum_j |(M^T)^j w|^2. In the Linf ball the best attack is x - eps sign(v), away from the box; a draw is
then right with probability p = Phi((v x + b - eps |v|_1) / tau), M of them with p^M, a majority of K with the upper
tail of the binomial.
"""

from __future__ import annotations

import pytest
import torch
from models import Linear, seeded
from scipy import stats as exact
from torch import Tensor

from bench.attacks.registry import find_attack
from bench.evaluation.verdict import Draws, verdict
from bench.evaluation.view import attack_view
from bench.spec.threat import ThreatModel
from bench.spec.view import ViewSpec
from bench.stats import proportions, voting
from defenses.core.defense import Classifier, Purified
from defenses.core.noise import Draw
from defenses.core.purifier import NoiseSpec, Purifier, State

SHAPE, STEPS, N, EPS = (1, 4, 4), 6, 24, 1 / 16
DRAWS, M, K = 1500, 5, 9
ATTACKS = [
    ("autoattack:apgd-ce-best-loss", {"n_iter": 30, "n_restarts": 1}, ViewSpec(eot=8)),
    ("foolbox:LinfPGD", {"steps": 60}, ViewSpec(eot=8)),
    ("bench:apgd", {"steps": 30, "decided": 0}, ViewSpec()),
    ("bench:adaptive", {"steps": 30, "decided": 0}, ViewSpec()),
]


class Denoiser(Purifier):
    """u <- M u + sigma z; deterministic where sigma is 0."""

    steps = STEPS

    def __init__(self, sigma: float):
        super().__init__()
        self.sigma = sigma
        self.matrix = 0.95 * torch.eye(16) + 0.05 * seeded(16, 16, seed=21)

    def noise(self, shape: tuple[int, ...]) -> NoiseSpec:
        return NoiseSpec(step=(Draw(shape),) if self.sigma else ())

    def start(self, x: Tensor, z: tuple[Tensor, ...]) -> tuple[State, State]:
        return {"u": x}, {}

    def step(self, state: State, ctx: State, k: int, z: tuple[Tensor, ...]) -> State:
        moved = (state["u"].flatten(1) @ self.matrix.T).view_as(state["u"])
        return {"u": moved + self.sigma * z[0] if self.sigma else moved}

    def finish(self, state: State, ctx: State) -> Tensor:
        return state["u"]


def problem(sigma: float) -> tuple[Purified, Tensor, Tensor, Tensor, float]:
    """Return (defense, images, labels, their margins after the best attack, tau)."""
    w = seeded(16, seed=22)
    powers = [w]
    for _ in range(STEPS):
        powers.append(Denoiser(sigma).matrix.T @ powers[-1])
    v = powers[-1]
    far = torch.linspace(-0.5, 0.5, N)[:, None] * v / v.norm()  # some images out of the attack's reach
    x = 0.5 + 0.02 * seeded(N, *SHAPE, seed=23) + far.view(N, *SHAPE)
    bias = -0.5 * v.sum()  # so that both classes are there
    layer = Linear(torch.stack([torch.zeros(16), w]), torch.stack([torch.zeros(()), bias]))
    bare = Classifier(layer, num_classes=2, input_shape=SHAPE)
    margin = x.flatten(1) @ v + bias
    y = (margin > 0).long()
    tau = sigma * float(torch.stack(powers[:-1]).square().sum()) ** 0.5
    return Purified(Denoiser(sigma), bare), x, y, margin.abs() - EPS * v.abs().sum(), tau


def judged(name: str, params: dict, spec: ViewSpec, sigma: float) -> Draws:
    defense, x, y, _, _ = problem(sigma)
    threat, indices = ThreatModel("Linf", "1/16"), torch.arange(N)
    with attack_view(defense, spec, seed=3) as (view, _):
        arguments = {"threat": threat, "target": None, "seed": 5, "num_classes": 2, "indices": indices}
        x_adv = find_attack(name, params).run(view, x, y, **arguments, **params)
    return verdict(defense, x_adv, indices, draws=DRAWS, selection=0, seed=11)


@pytest.mark.parametrize(("name", "params", "spec"), ATTACKS)
def test_without_noise_the_broken_images_are_those_that_can_be(name, params, spec) -> None:
    defense, _, y, left, _ = problem(0.0)
    assert not defense.stochastic
    assert 0 < int((left > 0).sum()) < N
    drawn = judged(name, params, ViewSpec(), 0.0)
    assert torch.equal(drawn.predictions[0] == y, left > 0)


@pytest.mark.parametrize(("name", "params", "spec"), ATTACKS)
def test_with_gaussian_noise_every_protocol_has_its_expectation(name, params, spec) -> None:
    """The attacks reach the optimum, so draws are binomial: all estimates lie within four of their standard errors."""
    _, _, y, left, tau = problem(0.05)
    p = exact.norm.cdf(left.double().numpy() / tau)
    right = (judged(name, params, spec, 0.05).predictions == y).numpy()
    correct = right.sum(0)
    error = 4 * (p * (1 - p) / DRAWS).sum() ** 0.5 / N
    assert correct.mean() / DRAWS == pytest.approx(p.mean(), abs=error)
    slope = M * p ** (M - 1)
    error = 4 * (slope**2 * p * (1 - p) / DRAWS).sum() ** 0.5 / N
    assert proportions.rob_at_m(correct, DRAWS, M).mean() == pytest.approx((p**M).mean(), abs=error)
    groups = right[: DRAWS // K * K].reshape(-1, K, N)
    voted = [voting.majority(1 - group.T.astype(int), [0] * N) for group in groups]
    tail = exact.binom.sf(K // 2, K, p)
    error = 4 * (tail * (1 - tail) / len(groups)).sum() ** 0.5 / N
    assert sum(v.mean() for v in voted) / len(voted) == pytest.approx(tail.mean(), abs=error)
