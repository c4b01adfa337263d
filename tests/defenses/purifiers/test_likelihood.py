"""Log-likelihood by the flow against Gaussian data, whose flow is affine and whose density is known."""

import math

import pytest
import torch
from gaussian_diffusion import MU, Exact, S, law

from defenses import load_model
from defenses.core import replay
from defenses.core.noise import Noise
from defenses.detectors.density import FlowLikelihood
from defenses.networks.registry import build_network
from defenses.networks.sde import START
from defenses.purifiers.diffusion.likelihood import bits_per_dim, dequantised, log_likelihood
from defenses.utils.errors import UserError

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
    log_p = log_likelihood(network, x, Noise.of(0, 5), steps=steps)
    (near, narrow), (far, wide) = law(network.sde, START), law(network.sde, 1.0)
    end = far + wide / narrow * (network.sde.encode(x) - near)
    unit = x[0].numel() * math.log(2 if network.sde.centred else 1)
    carried = normal(end, 0.0, network.sde.prior_std) + x[0].numel() * math.log(wide / narrow) + unit
    torch.testing.assert_close(log_p, carried, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(log_p, normal(network.sde.encode(x), MU, S) + unit, rtol=0.02, atol=0.05)


def test_probes_estimate_the_divergence():
    """On a network with a full Jacobian many probes agree, whatever their seed."""
    network = build_network("noise-mlp", size=3, hidden=16, depth=1).double().requires_grad_(False)
    x = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    few, many, other = (
        log_likelihood(network, x, Noise.of(seed, 2), probes=n, steps=20) for seed, n in ((0, 1), (0, 300), (1, 300))
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


@pytest.mark.parametrize("bounded", [False, True])
def test_gradient_is_exact(bounded, monkeypatch):
    """Against differences, through self-attention too, with the whole graph and by replay."""

    small = {"in_channels": 1, "size": 4, "channels": 8, "multipliers": [1, 1], "blocks": 1, "attention": [4]}
    network = build_network("ncsnpp", **small).double().eval().requires_grad_(False)
    if bounded:
        monkeypatch.setattr(replay, "_SHARE", 0.0)
    x = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    noise = Noise.of(0, 2)

    def value(at):
        return log_likelihood(network, at, noise, steps=6, probes=2)

    (gradient,) = torch.autograd.grad(value(x).sum(), x)
    direction, h = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64), 1e-5
    with torch.no_grad():
        slope = (value(x + h * direction) - value(x - h * direction)) / (2 * h)
    torch.testing.assert_close((gradient * direction).flatten(1).sum(1), slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["ve", "vp", "subvp"])
def test_the_detector_scores_the_exact_law(name):
    """Bits per dimension of the dequantised image under the network's exact Gaussian law."""

    detector, noise = FlowLikelihood(Exact(name).double(), steps=400, probes=1, levels=17), Noise.of(3, 5)
    sde = detector.network.sde
    x = torch.randint(17, (5, *SHAPE), generator=torch.Generator().manual_seed(0)).double() / 16
    bits = detector.scores(x, noise, None)
    unit = 9 * math.log(2 if sde.centred else 1)
    nats = normal(sde.encode(dequantised(x, noise, 17)), MU, S) + unit
    torch.testing.assert_close(bits, -nats / (9 * math.log(2)) + math.log2(17), rtol=0.02, atol=0.02)
    assert torch.equal(bits, detector.scores(x, noise, None)), "the noise decides"
    other = detector.scores(x, Noise.of(4, 5), None)
    assert not torch.equal(bits, other)
    rows = torch.tensor([3, 1])
    torch.testing.assert_close(detector.scores(x[rows], noise.rows(rows), None), bits[rows])


def test_dequantised_images_stay_in_their_level():
    levels = 17
    x = torch.randint(levels, (50, *SHAPE), generator=torch.Generator().manual_seed(0)) / (levels - 1)
    spread = dequantised(x, Noise.of(0, 50), levels)
    assert torch.equal((spread * levels).floor(), (x * (levels - 1)).round())
    assert not torch.equal(spread, dequantised(x, Noise.of(1, 50), levels))


def test_bits_of_the_uniform_law():
    """Density 1 on [0, 1]^D has log2(levels) bits per dimension; papers add 7 in units of [-1, 1], 256 levels."""
    assert float(bits_per_dim(torch.zeros(1), 12)) == 8
    assert float(bits_per_dim(torch.tensor([12 * math.log(2.0)]), 12)) == pytest.approx(7)
    assert float(bits_per_dim(torch.zeros(1), 12, levels=16)) == 4


def test_bad_arguments():
    with pytest.raises(UserError, match="probes"):
        log_likelihood(Exact(), torch.rand(1, *SHAPE), Noise.of(0, 1), probes=0)
    with pytest.raises(UserError, match="steps is 0"):
        log_likelihood(Exact(), torch.rand(1, *SHAPE), Noise.of(0, 1), steps=0)
    with pytest.raises(UserError, match="levels is 1; it must be a whole number, at least 2"):
        load_model("sde-likelihood", levels=1)
    with pytest.raises(UserError, match="knows its SDE"):
        log_likelihood(torch.nn.Identity(), torch.rand(1, *SHAPE), Noise.of(0, 1))
    with pytest.raises(UserError, match="it must be a noise predictor: ncsnpp, noise-mlp, unet-diffusers"):
        load_model("sde-likelihood", network="adp")
    with pytest.raises(UserError, match="is random, and cannot tell what is to be purified"):
        load_model("adp", detector="sde-likelihood", suspected="purify")
