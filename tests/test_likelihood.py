"""Log-likelihood by the flow against Gaussian data, whose flow is affine and whose density is known."""

import math

import pytest
import torch
from gaussian_diffusion import MU, Exact, S, law

from defenses.diffusion.likelihood import bits_per_dim, dequantised, log_likelihood
from defenses.diffusion.sde import START
from defenses.errors import UserError
from defenses.networks import build_network
from defenses.noise import Noise

SHAPE = (1, 3, 3)


def points(sde, n=5):
    u = MU + S * torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return sde.decode(u)


def normal(u, mean, std):
    return (-((u - mean) ** 2) / (2 * std**2) - math.log(std * math.sqrt(2 * math.pi))).flatten(1).sum(1)


@pytest.mark.parametrize("steps", [None, 400])
@pytest.mark.parametrize("name", ["ve", "vp", "subvp"])
def test_exact_on_gaussian_data(name, steps):
    network = Exact(name).double()
    x = points(network.sde)
    found = log_likelihood(network, x, Noise.of(0, 5), steps=steps)
    (near, narrow), (far, wide) = law(network.sde, START), law(network.sde, 1.0)
    end = far + wide / narrow * (network.sde.encode(x) - near)
    unit = x[0].numel() * math.log(2 if network.sde.centred else 1)
    carried = normal(end, 0.0, network.sde.prior_std) + x[0].numel() * math.log(wide / narrow) + unit
    torch.testing.assert_close(found, carried, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found, normal(network.sde.encode(x), MU, S) + unit, rtol=0.02, atol=0.05)


def test_probes_estimate_the_divergence():
    """A network that is not diagonal: many probes come together, whatever their seed."""
    network = build_network("noise-mlp", size=3, hidden=16, depth=1).double().requires_grad_(False)
    x = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    few, many, other = (
        log_likelihood(network, x, Noise.of(seed, 2), probes=n, steps=40) for seed, n in ((0, 1), (0, 300), (1, 300))
    )
    assert (few - many).abs().max() > (many - other).abs().max()
    torch.testing.assert_close(many, other, rtol=0.02, atol=0.3)


def test_same_noise_gives_the_same_value_and_rows_are_their_own():
    network = build_network("noise-mlp", size=3, hidden=16).requires_grad_(False)
    x, noise = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0)), Noise.of(0, 4)
    whole = log_likelihood(network, x, noise, steps=20)
    assert torch.equal(whole, log_likelihood(network, x, noise, steps=20))
    rows = torch.tensor([3, 1])
    torch.testing.assert_close(log_likelihood(network, x[rows], noise.rows(rows), steps=20), whole[rows])
    adaptive = log_likelihood(network, x, noise)
    torch.testing.assert_close(log_likelihood(network, x, noise, steps=400), adaptive, rtol=1e-2, atol=1e-2)


def test_dequantised_images_stay_in_their_level():
    levels = 17
    x = torch.randint(levels, (50, *SHAPE), generator=torch.Generator().manual_seed(0)) / (levels - 1)
    spread = dequantised(x, Noise.of(0, 50), levels)
    assert torch.equal((spread * levels).floor(), (x * (levels - 1)).round())
    assert not torch.equal(spread, dequantised(x, Noise.of(1, 50), levels))


def test_bits_of_the_uniform_law():
    """Density 1 on [0, 1]^D: log2(levels) bits a value; 7 more than in [-1, 1] units of 256 levels, as published."""
    assert float(bits_per_dim(torch.zeros(1), 12)) == 8
    assert float(bits_per_dim(torch.tensor([12 * math.log(2.0)]), 12)) == pytest.approx(7)
    assert float(bits_per_dim(torch.zeros(1), 12, levels=16)) == 4


def test_bad_arguments():
    with pytest.raises(UserError, match="probes"):
        log_likelihood(Exact(), torch.rand(1, *SHAPE), Noise.of(0, 1), probes=0)
