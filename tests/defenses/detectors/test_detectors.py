"""Detectors: scores against closed forms, gradients, thresholds, and cost."""

from __future__ import annotations

import copy

import pytest
import torch
from detector_parts import NOISE, Brightness, X, linear
from models import seeded
from torch import Tensor, nn

from bench.evaluation.meter import Meter
from defenses import card, list_models, load_model
from defenses.core.detector import calibrated, check_fpr
from defenses.core.noise import Noise
from defenses.data.dataset import load_dataset
from defenses.detectors import calibration
from defenses.detectors.density import Energy, ScoreNorm
from defenses.detectors.feature_squeezing import build as squeezing
from defenses.detectors.lid import dimension
from defenses.detectors.magnet import Divergence, Reconstruction
from defenses.detectors.mahalanobis import distance, whitening
from defenses.utils.errors import UserError

DETECTORS = [name for name in list_models() if card(name).kind == "detector"]
CALLS = {  # forward passes for the score of one image; a detector without an entry costs the same for every image
    "feature-squeezing": 2,
    "magnet-reconstruction": 1,
    "magnet-jsd": 3,
    "score-norm": 1,
    "likelihood": 1,
    "sde-likelihood": 4 * 40,
    "lid": 1,
    "mahalanobis": 1,
}


class Half(nn.Module):
    """x / 2 in place of an autoencoder."""

    def forward(self, x: Tensor) -> Tensor:
        return x / 2


def test_reconstruction_and_divergence_by_hand():
    net = linear()
    for p in (1, 2):
        expected = (X / 2).abs().pow(p).flatten(1).mean(1)
        torch.testing.assert_close(Reconstruction(Half(), p=p).scores(X, NOISE, net), expected)
    before, after = (net.network(x).detach().double() / 10 for x in (X, X / 2))
    a, b = before.softmax(1), after.softmax(1)
    m = (a + b) / 2
    expected = ((a * (a / m).log()).sum(1) + (b * (b / m).log()).sum(1)) / 2
    torch.testing.assert_close(Divergence(Half(), temperature=10).scores(X, NOISE, net), expected.float())
    same = Divergence(nn.Identity(), temperature=10).scores(X, NOISE, net)
    assert (same.abs() < 1e-7).all()


def test_squeezing_by_hand_and_its_stand_in_gradient():
    net = linear()
    rounded = (X > 0.5).float()
    expected = (net.network(X).softmax(1) - net.network(rounded).softmax(1)).abs().sum(1)
    squeezer = squeezing(None, bits=1, median=0, search=0, patch=3, strength=2)
    torch.testing.assert_close(squeezer.scores(X, NOISE, net), expected)
    assert not squeezer.differentiable
    leaf, image = X.clone().requires_grad_(), rounded.clone().requires_grad_()
    (grad,) = torch.autograd.grad(squeezer.scores(leaf, NOISE, net).sum(), leaf)
    other = X.clone().requires_grad_()
    gap = (net.network(other).softmax(1) - net.network(image).softmax(1)).abs().sum()
    torch.testing.assert_close(grad, sum(torch.autograd.grad(gap, (other, image))))
    both = squeezing(None, bits=1, median=2, search=0, patch=3, strength=2).scores(X, NOISE, net)
    median = squeezing(None, bits=0, median=2, search=0, patch=3, strength=2).scores(X, NOISE, net)
    torch.testing.assert_close(both, torch.maximum(expected, median))
    with pytest.raises(UserError, match="needs a squeezer"):
        squeezing(None, bits=0, median=0, search=0, patch=3, strength=2)


def test_score_norm_and_energy_of_a_gaussian():
    class Pull(nn.Module):  # the score of a standard normal
        def forward(self, x: Tensor) -> Tensor:
            return -x

    class Square(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.square().flatten(1).sum(1) / 2

    torch.testing.assert_close(ScoreNorm(Pull()).scores(X, NOISE, linear()), X.flatten(1).norm(dim=1))
    nats = Energy(Square(), temperature=0.5).scores(X, NOISE, linear())
    torch.testing.assert_close(nats, (2 * X - 1).square().flatten(1).sum(1))


@pytest.mark.parametrize("d", [1, 2, 5])
def test_dimension_of_a_ball(d):
    """For uniform points in a d-dimensional ball the estimate at its centre is d."""
    direction = torch.nn.functional.normalize(seeded(200, 4000, d, seed=d), dim=2)
    far = torch.rand(200, 4000, 1, generator=torch.Generator().manual_seed(1)) ** (1 / d)
    points = torch.cat([direction * far, torch.zeros(200, 4000, 3)], 2)  # in a space of more dimensions
    estimates = torch.stack([dimension(torch.zeros(1, d + 3), p, 50) for p in points])
    # The mean of k/(Gamma(k - 1)): the estimate with k - 1 free distances is d k / (k - 2) on average.
    assert float(estimates.mean()) == pytest.approx(d * 50 / 48, rel=0.03)


def test_mahalanobis_distance_is_that_of_the_law():
    """For normal classes with one covariance the squared distance to the true class is chi-squared with mean F."""
    mix = seeded(5, 5, seed=1)
    y = torch.arange(6000) % 3
    centres = 100 * seeded(3, 5, seed=2)
    z = seeded(6000, 5, seed=3).double()
    points = centres[y].double() + z @ mix.double().T
    means, whiten = whitening(points, y, y.unique(), least=1e-9)
    distances = distance(points, means, whiten)
    assert float(distances.mean()) == pytest.approx(5, rel=1e-3)
    exact = z.square().sum(1)
    assert float((distances - exact).abs().mean()) < 0.15


def test_threshold_is_conformal():
    scores = torch.arange(1.0, 20.0)  # 19 of them
    assert calibrated(Brightness(), linear(), scores, fpr=0.05).threshold == 19
    assert calibrated(Brightness(), linear(), scores, fpr=0.5).threshold == 10
    refused = []
    for seed in range(400):
        values = seeded(200, seed=seed).sort().values
        threshold = calibrated(Brightness(), linear(), values, fpr=0.1).threshold
        refused.append(float((seeded(200, seed=1000 + seed) > threshold).float().mean()))
    assert sum(refused) / 400 == pytest.approx(20 / 201, abs=0.006)


@pytest.mark.parametrize("fpr", [0, 1, -0.1, 1.5, "often", True, None])
def test_fpr_out_of_range(fpr):
    with pytest.raises(UserError, match=r"fpr is .*; it must be a number between 0 and 1"):
        check_fpr(fpr, 1000)


@pytest.fixture(scope="module", params=DETECTORS)
def guarded(request):
    return request.param, load_model(request.param, "digits")


def test_scores_are_finite_deterministic_and_each_image_s_own(guarded):
    guard, x = guarded[1].guard, load_dataset("digits", "validation").x[:40]
    scores = guard.scores(x, Noise.of(0, 40))
    assert scores.shape == (40,)
    assert scores.dtype == torch.float32
    assert scores.isfinite().all()
    rows = torch.tensor([7, 3])
    torch.testing.assert_close(guard.scores(x[rows], Noise.of(0, 40).rows(rows)), scores[rows], rtol=1e-3, atol=1e-4)
    again = load_model(guarded[0], "digits").guard
    assert again.threshold == guard.threshold


def test_scores_cost_what_is_documented(guarded):
    guard, x = guarded[1].guard, load_dataset("digits", "validation").x[:4]
    meter = Meter(dict.fromkeys(guard.cost_modules()))
    guard.scores(x, Noise.of(0, 4))
    meter.detach()
    each, rest = divmod(meter.forwards, 4)
    assert (each, rest) == (CALLS.get(guarded[0], max(each, 1)), 0)


def test_scores_have_gradients_that_differences_confirm(guarded):
    guard = copy.deepcopy(guarded[1].guard).double()
    x = load_dataset("digits", "validation").x[:4].double().requires_grad_()
    scores = guard.scores(x, Noise.of(0, 4))
    (gradient,) = torch.autograd.grad(scores.sum(), x)
    assert gradient.isfinite().all()
    assert (gradient.flatten(1).norm(dim=1) > 0).all()
    if not guard.detector.differentiable:
        return
    direction, h = gradient.sign(), 1e-6
    with torch.no_grad():
        up, down = (guard.scores(x + s * h * direction, Noise.of(0, 4)) for s in (1, -1))
    torch.testing.assert_close((up - down) / (2 * h), (gradient * direction).flatten(1).sum(1), rtol=1e-2, atol=1e-5)


def test_clean_images_are_refused_as_often_as_said(guarded):
    defense, x = guarded[1], load_dataset("digits", "test").x
    prediction = defense.decide(x, Noise.of(0, len(x)))
    assert prediction.scores is not None
    assert torch.equal(prediction.rejected, prediction.scores > defense.guard.threshold)
    assert float(prediction.rejected.float().mean()) < 0.1, "5% are meant, of 500"


def test_what_took_long_is_kept_and_read_again(tmp_path, monkeypatch):

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(calibration, "_SLOW", -1.0)
    first = load_model("mahalanobis", "digits")
    (file,) = (tmp_path / "purebench" / "detectors").iterdir()
    monkeypatch.setattr(calibration, "_fit_and_score", lambda *_: pytest.fail("it is kept"))
    again = load_model("mahalanobis", "digits", fpr=0.1)
    x = load_dataset("digits", "validation").x[:5]
    assert torch.equal(first.guard.scores(x, Noise.of(0, 5)), again.guard.scores(x, Noise.of(0, 5)))
    assert again.guard.threshold < first.guard.threshold
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file.write_bytes(b"damaged")
    assert load_model("mahalanobis", "digits").guard.threshold == first.guard.threshold
