"""Chains of purifiers against applying them one after another: values, gradients and noise."""

import pytest
import torch
from models import AddNoise, classifier, seeded
from torch import Tensor

from bench.evaluation.certificates.measure import certify
from defenses.core.chain import Chain
from defenses.core.defense import Purified
from defenses.core.noise import Draw, Noise
from defenses.core.purifier import NoiseSpec, Purifier, State
from defenses.core.purify import purify, unrolled
from defenses.core.replay import replayed
from defenses.utils.errors import UserError


class Blend(Purifier):
    """x <- x + a (c - x) with c the image at the start: context and several steps, and rows that stop."""

    paths = ("pull",)

    def __init__(self, steps: int, a: float = 0.2, low: float = 0.0):
        super().__init__()
        self.steps, self.a, self.low = steps, a, low

    def start(self, x: Tensor, z: tuple[Tensor, ...]) -> tuple[State, State]:
        return {"x": x * 0.5}, {"c": x.square()}

    def pull(self, x: Tensor, c: Tensor) -> Tensor:
        return self.a * (c - x).tanh()

    def step(self, state: State, ctx: State, k: int, z: tuple[Tensor, ...]) -> State:
        return {"x": state["x"] + self.pull(state["x"], ctx["c"]) * (1 + k)}

    def done(self, state: State) -> Tensor | None:
        return state["x"].flatten(1).mean(1) < self.low if self.low else None

    def finish(self, state: State, ctx: State) -> Tensor:
        return state["x"] + 0.1 * ctx["c"]


class StartNoise(Purifier):
    """A purifier without steps: start and finish alone."""

    steps = 0

    def noise(self, shape: tuple[int, ...]) -> NoiseSpec:
        return NoiseSpec(start=(Draw(shape),))

    def start(self, x: Tensor, z: tuple[Tensor, ...]) -> tuple[State, State]:
        return {"y": x + 0.3 * z[0]}, {}

    def step(self, state: State, ctx: State, k: int, z: tuple[Tensor, ...]) -> State:
        raise AssertionError

    def finish(self, state: State, ctx: State) -> Tensor:
        return state["y"]


X = seeded(5, 1, 8, 8).sigmoid()
CHAINS = [
    [Blend(3)],
    [Blend(2), Blend(3, 0.1)],
    [StartNoise(), Blend(3), AddNoise(0.1)],
    [Blend(2, low=0.28), StartNoise(), StartNoise(), Blend(2)],
    [StartNoise(), StartNoise()],
]


@pytest.mark.parametrize("parts", CHAINS)
def test_replay_gives_the_gradients_of_plain_autograd(parts):
    chain, noise = Chain(parts), Noise.of(0, 5)
    x = X.double().requires_grad_()
    plain = unrolled(chain, x, noise)
    (expected,) = torch.autograd.grad(plain.square().sum(), x)
    for length in (1, 2, 99):
        images = replayed(chain, x, noise, length=length)
        torch.testing.assert_close(images, plain)
        torch.testing.assert_close(torch.autograd.grad(images.square().sum(), x)[0], expected)
    with torch.no_grad():
        torch.testing.assert_close(purify(chain, X.double(), noise), plain)


def test_parts_without_noise_are_applied_in_turn():
    noise = Noise.of(0, 5)
    parts = [Blend(2, low=0.28), Blend(3, 0.1), Blend(1)]
    x = X
    for part in parts:
        x = purify(part, x, noise)
    torch.testing.assert_close(purify(Chain(parts), X, noise), x)
    assert Chain(parts).steps == 6


def test_noise_of_a_part_is_its_own():
    out = purify(Chain([StartNoise(), StartNoise()]), torch.zeros(4000, 1, 1, 1), Noise.of(0, 4000))
    assert float(out.std()) == pytest.approx(0.3 * 2**0.5, rel=0.05), "two independent draws"


def test_a_certificate_reaches_the_paths_of_parts():

    net = classifier()
    certificate = certify(Purified(Chain([Blend(2), Blend(30, 0.005)]), net), X[:3], seed=0)
    assert certificate is not None
    assert {c.name for c in certificate.checks if "path" in c.name} == {
        "the path through parts.0.pull contributes",
        "the path through parts.1.pull contributes",
    }
    assert certificate.passed


def test_modes_are_those_that_the_parts_have():
    class Hard(StartNoise):
        differentiable = False

    assert Purified(Chain([Hard(), Blend(8)]), classifier()).gradients == ("bpda", "blind", "bpda-filters")
    assert "surrogate" in Purified(Chain([StartNoise(), Blend(8)]), classifier()).gradients
    assert Chain([StartNoise(), Blend(8)]).surrogate().steps == 2
    with pytest.raises(UserError, match="no purifiers"):
        Chain([])
