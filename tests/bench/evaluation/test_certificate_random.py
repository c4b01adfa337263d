"""Certificates of random modules of one's own: float32 and float64 are compared under the same noise."""

import numpy as np
import pytest
import torch
from certificate_checks import COSINE, DIFFERENCES, values
from networks import SIZES, Behind, classifier
from torch import nn
from torch.utils.checkpoint import checkpoint

from defenses.core.defense import UserModule


class Curved(nn.Module):
    """A network that bends a lot, so that other noise means another gradient."""

    def __init__(self, noisy):
        super().__init__()
        torch.manual_seed(0)
        self.noisy, self.first, self.last = noisy, nn.Linear(36, 32), nn.Linear(32, 4)
        self.first.weight.data *= 8
        self.eval()

    def forward(self, x):
        return self.last(torch.sin(self.first(self.noisy(x).flatten(1))))


def _normal_out(x):
    return x + torch.normal(0.0, 0.1, x.shape, out=torch.empty_like(x))


def _checkpointed(x):
    return checkpoint(lambda u: (u + 0.1 * torch.randn_like(u)).sin(), x, use_reentrant=False)


DRAWS = {
    "randn_like": lambda x: x + 0.1 * torch.randn_like(x),
    "randn": lambda x: x + 0.1 * torch.randn(x.shape, dtype=x.dtype),
    "randn in float32": lambda x: x + 0.1 * torch.randn(x.shape),
    "randn in float64": lambda x: x + 0.1 * torch.randn(x.shape, dtype=torch.float64).to(x),
    "own generator": lambda x: (
        x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=x.dtype)
    ),
    "rand": lambda x: x + torch.rand(x.shape, dtype=x.dtype),
    "rand_like": lambda x: x * torch.rand_like(x),
    "normal": lambda x: x + torch.normal(torch.zeros_like(x), 0.1),
    "normal, out": _normal_out,
    "normal_": lambda x: x + torch.empty_like(x).normal_(0, 0.1),
    "uniform_": lambda x: x * x.new_empty(x.shape).uniform_(),
    "dropout": lambda x: nn.functional.dropout(x, 0.3, training=True),
    "fused dropout": lambda x: torch.native_dropout(x, 0.3, True)[0],
    "alpha dropout": lambda x: nn.functional.alpha_dropout(x, 0.3, training=True),
    "bernoulli": lambda x: x * torch.bernoulli(torch.full_like(x, 0.7)),
    "distribution": lambda x: torch.distributions.Normal(x, 0.1).rsample(),
    "gumbel": lambda x: nn.functional.gumbel_softmax(x.flatten(1)).view_as(x),
    "numpy": lambda x: x + torch.from_numpy(np.random.normal(0, 0.1, x.shape)).to(x),
    "checkpoint": _checkpointed,
}


@pytest.mark.parametrize("name", DRAWS)
def test_a_random_module_is_compared_under_the_same_noise(name):
    certificate, checks = values(UserModule(Curved(DRAWS[name]), stochastic=True))
    assert certificate.passed, checks
    assert checks[COSINE].value > 1 - 1e-6


@pytest.mark.parametrize("size", ["curved", *SIZES])
@pytest.mark.parametrize("name", ["randn_like", "dropout", "fused dropout"])
def test_a_random_module_with_a_fault_is_found_at_every_size(name, size):
    def noisy(x):
        return DRAWS[name](x) + (x.square() - x.square().detach())

    network = Curved(noisy) if size == "curved" else Behind(noisy, classifier(size))
    assert values(UserModule(network, stochastic=True))[1][DIFFERENCES].state == "failed"
