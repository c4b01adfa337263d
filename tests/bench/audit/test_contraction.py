"""The rate of contraction: that of linear purifiers in closed form, equal by seed, mistakes are one line."""

import numpy as np
import pytest
import torch

from bench import contraction
from defenses import load_model
from defenses.core.defense import Classifier, Purified
from defenses.core.noise import Draw
from defenses.core.purifier import NoiseSpec, Purifier
from defenses.data import load_dataset
from defenses.utils.errors import UserError


class Scaling(Purifier):
    """x -> factor x + z: the noise falls out of the rate."""

    steps = 1

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def noise(self, shape):
        return NoiseSpec(step=(Draw(shape),))

    def start(self, x, z):
        return {"u": x}, {}

    def step(self, state, ctx, k, z):
        return {"u": self.factor * state["u"] + z[0]}

    def finish(self, state, ctx):
        return state["u"]


def linear(factor):
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    return Purified(Scaling(factor), Classifier(network, num_classes=10, input_shape=(1, 8, 8)))


X = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("factor", [0.25, 1.0, 3.0])
def test_a_scaling_has_its_factor_as_rate(factor):
    rates = contraction(linear(factor), X, 1 / 5)
    assert rates.shape == (3,)
    np.testing.assert_allclose(rates, factor, rtol=1e-5)


def test_it_is_the_same_by_seed_and_another_by_another():
    model, x = load_model("adp", dataset="digits", runs=1), load_dataset("digits").x[:4]
    rates = contraction(model, x, 1 / 5, seed=3)
    assert np.array_equal(rates, contraction(model, x, 1 / 5, seed=3))
    assert not np.array_equal(rates, contraction(model, x, 1 / 5, seed=4))
    np.testing.assert_allclose(contraction(model, x[:2], 1 / 5, seed=3), rates[:2], rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((load_model("undefended", dataset="digits"), X, 0.2), {}, "Classifier has no purifier"),
        ((linear(1.0), X, 0), {}, "eps is 0; it must be above 0"),
        ((linear(1.0), X, float("nan")), {}, "eps is nan"),
        ((linear(1.0), X, 0.2), {"directions": 0}, "directions is 0"),
        ((load_model("adp", dataset="digits"), torch.rand(2, 1, 9, 9), 0.2), {}, r"floats \[N, 1, 8, 8\]"),
        ((linear(1.0), X * float("nan"), 0.2), {}, "not finite"),
        ((linear(1.0), X[0], 0.2), {}, r"images are torch.float32 \[1, 8, 8\]"),
    ],
)
def test_mistakes_are_one_line(arguments, options, message):
    with pytest.raises(UserError, match=message) as caught:
        contraction(*arguments, **options)
    assert "\n" not in str(caught.value)
