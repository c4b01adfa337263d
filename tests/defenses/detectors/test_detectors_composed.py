"""Detectors in compositions: refusal, purification, the interface of attacks, and fingerprints."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detector_parts import Brightness, X, linear
from models import SHAPE, AddNoise, Squash, seeded
from torch import Tensor, nn

from defenses import load_model
from defenses.core.chain import Chain
from defenses.core.defense import Purified
from defenses.core.detector import Guard, Guarded, clean_scores, guard_of
from defenses.core.noise import Noise
from defenses.data.dataset import load_dataset
from defenses.detectors.calibration import guarded_by
from defenses.detectors.density import Energy
from defenses.detectors.gated import Gated
from defenses.filters.bit_depth import BitDepth
from defenses.utils.errors import UserError
from defenses.zoo.assembly import composed
from defenses.zoo.registry import fingerprint, parts


def test_bad_compositions_are_named():
    with pytest.raises(UserError, match="needs at least 999 clean validation images, and there are 297"):
        load_model("score-norm", fpr="1/1000")
    with pytest.raises(UserError, match='fpr is "much"'):
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
    file = tmp_path / "mine.npz"
    np.savez(file, x=np.zeros((4, 1, 8, 8), np.float32), y=np.arange(4), num_classes=np.array(10))
    with pytest.raises(UserError, match=r"is calibrated on validation images, and .* has none"):
        guarded_by(Brightness(), linear(10), str(file), 0.05)


def test_the_fingerprint_names_everything():
    identified = fingerprint("score-norm", "digits", {})
    assert set(identified["weights"]) == {"adp", "undefended"}
    assert identified["detector_data"]
    beside = fingerprint("pgd-at", "digits", {"detector": {"name": "lid", "fpr": "1/10"}})
    (part,) = beside["around"]
    assert part["role"] == "detector"
    assert part["parameters"]["fpr"] == "1/10"
    assert beside["detector_data"] == identified["detector_data"]
    assert "detector_data" not in fingerprint("pgd-at", "digits", {})


def test_gated_purifies_what_is_suspected_alone():
    net = linear()
    x = torch.stack([torch.full(SHAPE, 0.2), torch.full(SHAPE, 0.8)])
    guard = Guard(Brightness(), net, threshold=0.5)
    gated = Purified(Gated(Squash(3), guard), net)
    expected = torch.cat([net.network(x[:1]), net.network(x[1:] ** 8)])
    torch.testing.assert_close(gated.logits(x, Noise.of(0, 2)), expected)
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(gated.logits(leaf, Noise.of(0, 2))[:, 0].sum(), leaf)
    slope = net.network.weight[0].view(SHAPE)
    torch.testing.assert_close(grad[0], slope)
    torch.testing.assert_close(grad[1], slope * 8 * 0.8**7)
    assert gated.gradients == Purified(Squash(3), net).gradients
    assert guard_of(gated) is guard
    assert Gated(Squash(8), guard).surrogate(3).steps == 3
    noisy = Purified(Gated(AddNoise(0.3), guard), net)
    logits = noisy.logits(x, Noise.of(0, 2))
    torch.testing.assert_close(logits[0], net.network(x)[0])
    torch.testing.assert_close(logits[1], Purified(AddNoise(0.3), net).logits(x, Noise.of(0, 2))[1])


def test_gated_behind_rounding_has_the_gradient_of_what_follows():
    """Suspected images have the Jacobian at the rounded image, the others that of the classifier alone."""
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
    (grad,) = torch.autograd.grad(logits[:, 0].sum(), leaf)
    slope = net.network.weight[0].view(SHAPE)
    torch.testing.assert_close(grad[0], slope)
    torch.testing.assert_close(grad[1], slope * 8 * rounded**7)
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
    logits = defense.logits(x, noise)
    torch.testing.assert_close(
        logits[suspected],
        load_model("adp", "digits", runs=2, steps=3).logits(x, noise)[suspected],
        rtol=1e-3,
        atol=1e-3,
    )
    plain = load_model("undefended", "digits").logits(x, noise).log_softmax(1)
    assert torch.allclose(logits[~suspected], plain[~suspected], atol=1e-4) == (level is None)
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
