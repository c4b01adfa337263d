"""Diffusion-denoised smoothing: noise of sigma is that of one time, and certificates meet their closed form."""

import math

import pytest
import torch
from gaussian_diffusion import MU, Exact, S
from torch import nn

from bench.cli.main import main
from bench.tracks.smoothing.certify import CertificationProtocol, certified, check_form
from bench.tracks.smoothing.noisy_defense import noisy
from defenses import load_model
from defenses.core.defense import Classifier, Purified
from defenses.core.noise import Noise
from defenses.core.purify import purify
from defenses.networks.sde import VP, sde_of, time
from defenses.purifiers.diffusion.samplers import DenoiseOnce
from defenses.utils.errors import UserError

SDES, SIGMA = ["ve", "vp", "subvp"], 0.25


@pytest.mark.parametrize("sigma", [0.1, 0.25, 0.5, 1.0])
def test_the_time_of_a_noise(sigma):
    """(1 - alpha-bar) / alpha-bar = (2 sigma)^2, as data of width 1 become data of width 2."""
    sde = VP()
    t = sde.time_of(sigma)
    bar = float(sde.mean(time(t))) ** 2
    assert (1 - bar) / bar == pytest.approx(4 * sigma**2, rel=1e-9)
    integral, slope = math.log(1 + 4 * sigma**2), sde.beta_max - sde.beta_min
    solved = (math.sqrt(sde.beta_min**2 + 2 * slope * integral) - sde.beta_min) / slope
    assert t == pytest.approx(solved, rel=1e-9)
    bars = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)  # DDPM's thousand steps
    assert int(((1 - bars) / bars < 4 * sigma**2).sum()) == pytest.approx(1000 * t, abs=2)


@pytest.mark.parametrize("name", SDES)
def test_a_denoiser_told_its_noise_has_it(name):
    p = DenoiseOnce(Exact(name), sigma=SIGMA).double()
    assert p.sigma == pytest.approx(SIGMA, rel=1e-12)
    x = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = Noise.of(5, 3).child(0, 0).draw(p.noise((1, 4, 4)).start[0]).double()
    told = p.denoised(p.sde.mean(time(p.t_star)) * p.sde.encode(x + SIGMA * z), p.t_star)
    torch.testing.assert_close(purify(p, x, Noise.of(5, 3)), p.sde.decode(told))


def test_a_noise_that_no_time_has_is_refused():
    for sigma in (1e-6, 1e4, -1.0):
        with pytest.raises(UserError, match="this SDE has noise above"):
            DenoiseOnce(Exact("vp"), sigma=sigma)
    with pytest.raises(UserError, match=r"noise above 0.01 and at most 50"):
        sde_of("ve").time_of(51)


@pytest.mark.parametrize("name", SDES)
def test_the_radius_converges_to_the_distance_behind_the_exact_denoiser(name):
    """Pixels of the data are N(a, s^2), so that the denoiser is x -> a + g (x - a), with g = s^2 / (s^2 + sigma^2).

    Class 1 is where the mean of 16 pixels, denoised, is above .5: where that of the image is above a + (.5 - a) / g.
    """
    sde = sde_of(name)
    a, s = (MU + 1) / 2 if sde.centred else MU, S / 2 if sde.centred else S
    boundary = a + (0.5 - a) * (s**2 + SIGMA**2) / s**2
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        network[1].weight.copy_(torch.stack((torch.zeros(16), torch.ones(16))))
        network[1].bias.copy_(torch.tensor([0.0, -8.0]))
    inner = Classifier(network, num_classes=2, input_shape=(1, 4, 4))
    defense, distances = Purified(DenoiseOnce(Exact(name), sigma=SIGMA), inner, runs=1), [0.15, -0.15, 0.3, -0.5]
    x = torch.stack([torch.full((1, 4, 4), boundary + d / 4) for d in distances])
    protocol = CertificationProtocol(SIGMA, n=200_000)
    found = list(certified(defense, x, torch.arange(4), protocol, batch=50_000))
    assert [f.prediction for f in found] == [1, 0, 1, 0]
    for f, d in zip(found, distances, strict=True):
        assert 0.97 * abs(d) < f.radius <= abs(d)


def test_noise_stands_once_before_the_denoiser():
    name, params, sigma = noisy("denoise-once", "digits", {"classifier": "smoothing"}, 0.25)
    assert (name, params, sigma) == ("denoise-once", {"classifier": "smoothing", "sigma": 0.25}, 0.25)
    model = load_model(name, "digits", **params)
    check_form(model, 0.25)
    assert isinstance(model.purifier, DenoiseOnce)
    assert noisy("denoise-once", "digits", {"sigma": "1/8"}, None)[2] == 0.125
    with pytest.raises(UserError, match=r"noise of sigma 0\.5"):
        check_form(model, 0.5)
    with pytest.raises(UserError, match="say how much: --sigma 1/4"):
        noisy("denoise-once", "digits", {}, None)
    with pytest.raises(UserError, match="leave t_star out"):
        noisy("denoise-once", "digits", {"t_star": 0.1}, 0.25)


def test_the_command_certifies_it(tmp_path, capsys):
    given = ["--n", "300", "--indices", "first-4", "--quiet", "--out", str(tmp_path)]
    assert main(["smooth", "denoise-once", "--sigma", "1/4", *given]) == 0
    assert "Certified accuracy: denoise-once on digits (test)" in capsys.readouterr().out
    assert main(["smooth", "denoise-once", "--sigma", "100", *given]) == 2
    assert "this SDE has noise above" in capsys.readouterr().err
