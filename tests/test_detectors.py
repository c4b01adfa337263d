"""Detectors: scores against closed forms, thresholds, what they cost, and what a composition does with them."""

from __future__ import annotations

import copy

import pytest
import torch
from models import SHAPE, AddNoise, Linear, Squash, images, seeded
from torch import Tensor, nn

from bench.data import load_dataset
from bench.meter import Meter
from defenses import card, list_models, load_model
from defenses.base import Classifier, Purified
from defenses.chain import Chain
from defenses.composition import composed
from defenses.detector import Detector, Guard, Guarded, calibrated, check_fpr, clean_scores, guard_of
from defenses.detectors.density import Energy, ScoreNorm
from defenses.detectors.feature_squeezing import build as squeezing
from defenses.detectors.gated import Gated
from defenses.detectors.lid import dimension
from defenses.detectors.magnet import Divergence, Reconstruction
from defenses.detectors.mahalanobis import distance, whitening
from defenses.errors import UserError
from defenses.filters.bit_depth import BitDepth
from defenses.noise import Noise
from defenses.registry import fingerprint, parts

DETECTORS = [name for name in list_models() if card(name).kind == "detector"]
CALLS = {  # forwards through networks for the score of one image; one that is not here costs every image alike
    "feature-squeezing": 2,
    "magnet-reconstruction": 1,
    "magnet-jsd": 3,
    "score-norm": 1,
    "likelihood": 1,
    "sde-likelihood": 4 * 40,
    "lid": 1,
    "mahalanobis": 1,
}
X = images(6)
NOISE = Noise.of(0, 6)


class Brightness(Detector):
    """The mean of the pixels."""

    def scores(self, x: Tensor, noise: Noise, classifier: Classifier) -> Tensor:
        return x.flatten(1).mean(1)


class Half(nn.Module):
    """x / 2, in the place of an autoencoder."""

    def forward(self, x: Tensor) -> Tensor:
        return x / 2


def linear(classes: int = 3) -> Classifier:
    net = Linear(seeded(classes, 64, seed=3) / 8, seeded(classes, seed=4))
    return Classifier(net, num_classes=classes, input_shape=SHAPE)


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
    (found,) = torch.autograd.grad(squeezer.scores(leaf, NOISE, net).sum(), leaf)
    other = X.clone().requires_grad_()
    gap = (net.network(other).softmax(1) - net.network(image).softmax(1)).abs().sum()
    torch.testing.assert_close(found, sum(torch.autograd.grad(gap, (other, image))))
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
    """Of points that are uniform in a d-dimensional ball the estimate at its middle is d."""
    way = torch.nn.functional.normalize(seeded(200, 4000, d, seed=d), dim=2)
    far = torch.rand(200, 4000, 1, generator=torch.Generator().manual_seed(1)) ** (1 / d)
    points = torch.cat([way * far, torch.zeros(200, 4000, 3)], 2)  # in a space of more dimensions
    found = torch.stack([dimension(torch.zeros(1, d + 3), p, 50) for p in points])
    # The mean of k/(Gamma(k - 1)): the estimate with k - 1 free distances is d k / (k - 2) on average.
    assert float(found.mean()) == pytest.approx(d * 50 / 48, rel=0.03)


def test_mahalanobis_distance_is_that_of_the_law():
    """For normal classes with one covariance the squared distance to the own class is chi-squared, its mean F."""
    mix = seeded(5, 5, seed=1)
    y = torch.arange(6000) % 3
    centres = 100 * seeded(3, 5, seed=2)
    z = seeded(6000, 5, seed=3).double()
    points = centres[y].double() + z @ mix.double().T
    means, whiten = whitening(points, y, y.unique(), least=1e-9)
    found = distance(points, means, whiten)
    assert float(found.mean()) == pytest.approx(5, rel=1e-3)
    exact = z.square().sum(1)
    assert float((found - exact).abs().mean()) < 0.15


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


def test_bad_compositions_are_named():
    with pytest.raises(UserError, match="needs at least 999 clean validation images, and there are 297"):
        load_model("score-norm", fpr="1/1000")
    with pytest.raises(UserError, match="fpr is 'much'"):
        load_model("pgd-at", detector={"name": "lid", "fpr": "much"})
    with pytest.raises(UserError, match="did you mean refuse"):
        load_model("adp", detector="score-norm", suspected="refused")
    with pytest.raises(UserError, match="needs a purifier, and a detector"):
        load_model("undefended", detector="score-norm", suspected="purify")
    with pytest.raises(UserError, match="needs a purifier, and a detector"):
        load_model("adp", suspected="purify")
    with pytest.raises(UserError, match='takes "level" with suspected'):
        load_model("adp", detector="score-norm", level=0.2)
    with pytest.raises(UserError, match="and Langevin has none"):
        load_model("ebm-mcmc", detector="score-norm", suspected="purify", level=0.2)
    with pytest.raises(UserError, match="is a detector, so it takes no"):
        composed("mine", Brightness(), {"classifier": "undefended", "detector": "lid"}, parts("digits", None, None))


def test_data_without_a_validation_split(tmp_path):
    import numpy as np

    file = tmp_path / "mine.npz"
    np.savez(file, x=np.zeros((4, 1, 8, 8), np.float32), y=np.arange(4), num_classes=np.array(10))
    from defenses.detectors.fitted import guarded_by

    with pytest.raises(UserError, match=r"is calibrated on validation images, and .* has none"):
        guarded_by(Brightness(), linear(10), str(file), 0.05)


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
    way, h = gradient.sign(), 1e-6
    with torch.no_grad():
        up, down = (guard.scores(x + s * h * way, Noise.of(0, 4)) for s in (1, -1))
    torch.testing.assert_close((up - down) / (2 * h), (gradient * way).flatten(1).sum(1), rtol=1e-2, atol=1e-5)


def test_clean_images_are_refused_as_often_as_said(guarded):
    defense, x = guarded[1], load_dataset("digits", "test").x
    said = defense.decide(x, Noise.of(0, len(x)))
    assert said.scores is not None
    assert torch.equal(said.rejected, said.scores > defense.guard.threshold)
    assert float(said.rejected.float().mean()) < 0.1, "5% are meant, of 500"


def test_what_took_long_is_kept_and_read_again(tmp_path, monkeypatch):
    from defenses.detectors import fitted

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(fitted, "_LONG", -1.0)
    first = load_model("mahalanobis", "digits")
    (file,) = (tmp_path / "purebench" / "detectors").iterdir()
    monkeypatch.setattr(fitted, "_made", lambda *_: pytest.fail("it is kept"))
    again = load_model("mahalanobis", "digits", fpr=0.1)
    x = load_dataset("digits", "validation").x[:5]
    assert torch.equal(first.guard.scores(x, Noise.of(0, 5)), again.guard.scores(x, Noise.of(0, 5)))
    assert again.guard.threshold < first.guard.threshold
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file.write_bytes(b"damaged")
    assert load_model("mahalanobis", "digits").guard.threshold == first.guard.threshold


def test_the_fingerprint_names_everything():
    said = fingerprint("score-norm", "digits", {})
    assert set(said["weights"]) == {"adp", "undefended"}
    assert said["detector_data"]
    beside = fingerprint("pgd-at", "digits", {"detector": {"name": "lid", "fpr": "1/10"}})
    (part,) = beside["around"]
    assert part["role"] == "detector"
    assert part["parameters"]["fpr"] == "1/10"
    assert beside["detector_data"] == said["detector_data"]
    assert "detector_data" not in fingerprint("pgd-at", "digits", {})


def test_gated_purifies_what_is_suspected_alone():
    net = linear()
    x = torch.stack([torch.full(SHAPE, 0.2), torch.full(SHAPE, 0.8)])
    guard = Guard(Brightness(), net, threshold=0.5)
    gated = Purified(Gated(Squash(3), guard), net)
    expected = torch.cat([net.network(x[:1]), net.network(x[1:] ** 8)])
    torch.testing.assert_close(gated.logits(x, Noise.of(0, 2)), expected)
    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(gated.logits(leaf, Noise.of(0, 2))[:, 0].sum(), leaf)
    slope = net.network.weight[0].view(SHAPE)
    torch.testing.assert_close(found[0], slope)
    torch.testing.assert_close(found[1], slope * 8 * 0.8**7)
    assert gated.gradients == Purified(Squash(3), net).gradients
    assert guard_of(gated) is guard
    assert Gated(Squash(8), guard).surrogate(3).steps == 3
    noisy = Purified(Gated(AddNoise(0.3), guard), net)
    said = noisy.logits(x, Noise.of(0, 2))
    torch.testing.assert_close(said[0], net.network(x)[0])
    torch.testing.assert_close(said[1], Purified(AddNoise(0.3), net).logits(x, Noise.of(0, 2))[1])


def test_gated_behind_rounding_has_the_gradient_of_what_follows():
    """Of suspected images the Jacobian at the rounded image; of the others that of the classifier alone."""
    net = linear()
    x = torch.stack([torch.full(SHAPE, 0.21), torch.full(SHAPE, 0.81)])
    gated = Gated(Chain([BitDepth(bits=3), Squash(3)]), Guard(Brightness(), net, threshold=0.5))
    defense = Purified(gated, net)
    assert defense.gradients == ("bpda", "blind", "bpda-filters")
    assert not gated.differentiable
    assert gated.bridged().differentiable
    leaf, noise = x.clone().requires_grad_(), Noise.of(0, 2)
    logits = defense.logits(leaf, noise, gradient="bpda-filters")
    assert torch.equal(logits, defense.logits(x, noise))
    rounded = round(0.81 * 7) / 7
    torch.testing.assert_close(logits, net.network(torch.stack([x[0], torch.full(SHAPE, rounded**8)])))
    (found,) = torch.autograd.grad(logits[:, 0].sum(), leaf)
    slope = net.network.weight[0].view(SHAPE)
    torch.testing.assert_close(found[0], slope)
    torch.testing.assert_close(found[1], slope * 8 * rounded**7)
    for other in ([Squash(2)], [BitDepth(bits=3)]):
        assert Gated(Chain(other), gated.guard).bridged() is None
    named = load_model(
        "adp", "digits", filters=["bit-depth"], detector="score-norm", suspected="purify", runs=2, steps=2
    )
    assert "bpda-filters" in named.gradients


@pytest.mark.parametrize("level", [None, 0, "1/5"])
def test_adp_detects_then_purifies(level):
    params = {} if level is None else {"level": level}
    defense = load_model("adp", "digits", detector="score-norm", suspected="purify", runs=2, steps=3, **params)
    data = load_dataset("digits", "validation")
    x = torch.cat([data.x[:6], seeded(6, 1, 8, 8).abs().clamp(0, 1)])
    noise = Noise.of(0, 12)
    suspected = defense.purifier.guard.excess(x, noise) > 0
    assert suspected[6:].all()
    assert not suspected[:6].all()
    said = defense.logits(x, noise)
    torch.testing.assert_close(
        said[suspected], load_model("adp", "digits", runs=2, steps=3).logits(x, noise)[suspected], rtol=1e-3, atol=1e-3
    )
    plain = load_model("undefended", "digits").logits(x, noise).log_softmax(1)
    assert torch.allclose(said[~suspected], plain[~suspected], atol=1e-4) == (level is None)
    leaf = x.clone().requires_grad_()
    for mode in defense.gradients:
        (gradient,) = torch.autograd.grad(defense.logits(leaf, noise, gradient=mode).sum(), leaf)
        assert gradient.isfinite().all(), mode


def test_guarded_passes_on_what_attacks_ask():
    defense = load_model("adp", "digits", detector="score-norm", runs=3)
    assert isinstance(defense, Guarded)
    assert defense.runs == 3
    assert guard_of(defense) is defense.guard
    assert guard_of(load_model("adp", "digits")) is None
    with pytest.raises(UserError, match="scores that are not finite"):
        clean_scores(Energy(_Nan(), temperature=1), X, linear())


class _Nan(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).sum(1) * float("nan")
