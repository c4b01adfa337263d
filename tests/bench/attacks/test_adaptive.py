"""`bench:...`: attacks of our own, against defenses whose best attack is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from adaptive_runs import INNER, NORMS, N, attacked, l1_reach, linear, margin, reach
from hypothesis import given, settings
from hypothesis import strategies as st
from models import SHAPE, AddNoise, Squash, classifier, images, labels_of
from torch import Tensor

from bench.attacks.registry import Unsupported, find_attack
from bench.evaluation.view import attack_view
from bench.spec.threat import Norm, ThreatModel, distances, exact, in_box
from bench.spec.view import ViewSpec
from bench.stats.proportions import rob_at_m
from defenses.core.defense import Classifier, Defense, Purified
from defenses.core.noise import Draw, Noise


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["adaptive", "apgd", "pgd"])
def test_linear_optimum(name: str, norm: Norm) -> None:
    defense, x, y = linear(50.0)  # out of reach, so that nobody leaves
    best = l1_reach(defense, x, 2) if norm == "L1" else torch.full((N,), reach(defense, norm, float(eval(INNER[norm]))))
    fallen = margin(defense, x) - margin(defense, attacked(name, defense, x, y, norm, steps=60))
    assert (fallen <= best * 1.0001).all()
    least = {"Linf": 0.999, "L2": 0.99, "L1": 0.9 if name == "pgd" else 0.98}[norm]
    assert (fallen >= best * least).all(), (fallen / best).min()


@pytest.mark.parametrize("norm", NORMS)
def test_breaks_exactly_what_can_be_broken(norm: Norm) -> None:
    defense, x, y = linear(1.0)
    far = margin(defense, x)
    for name in ("adaptive", "apgd"):
        for share, broken in ((1.03, True), (0.97, False)):
            eps = _needed(defense, x, far, norm) * share
            for i in range(3):
                one = attacked(name, defense, x[i : i + 1], y[:1], norm, f"{float(eps[i]):.6f}", steps=60)
                assert bool(margin(defense, one) < 0) is broken


def _needed(defense: Classifier, x: Tensor, far: Tensor, norm: Norm) -> Tensor:
    if norm != "L1":
        return far / reach(defense, norm, 1.0)
    low, high = torch.zeros(len(x)), torch.full((len(x),), 20.0)
    for _ in range(40):
        eps = (low + high) / 2
        enough = torch.stack([l1_reach(defense, x[i : i + 1], float(e))[0] for i, e in enumerate(eps)]) >= far
        low, high = torch.where(enough, low, eps), torch.where(enough, eps, high)
    return high


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("name", ["adaptive", "apgd", "pgd", "transfer"])
def test_gaussian_noise_before_a_linear_classifier(name: str, norm: Norm) -> None:
    bare, x, y = linear(6.0)
    noisy = Purified(AddNoise(0.3), bare)  # accuracy Phi(margin / (.3 |w|)): the best attack is that of the classifier
    fallen = margin(bare, x) - margin(bare, attacked(name, noisy, x, y, norm, INNER[norm], steps=40))
    assert (fallen >= 0.97 * reach(bare, norm, float(eval(INNER[norm])))).all()


class Errs(Defense):
    """Wrong in 30% of the draws, whatever the image; in the others a linear classifier."""

    stochastic = True
    gradients = ("exact",)

    def __init__(self, base: Classifier):
        super().__init__()
        self.base, self.num_classes = base, base.num_classes

    def logits(self, x: Tensor, noise: Noise, *, gradient: str = "exact", runs: int | None = None) -> Tensor:
        z = self.base.network(x)
        errs = noise.draw(Draw((1,), "uniform")) < 0.3
        return torch.where(errs, torch.tensor([-6.0, 6.0]), z)


@pytest.mark.parametrize("name", ["adaptive", "apgd", "square"])
def test_lucky_misses_do_not_count(name: str) -> None:
    base, x, y = linear(6.0)
    params: dict[str, Any] = {"queries": 400, "eot": 8} if name == "square" else {"steps": 40, "restarts": 3}
    if name != "square":
        params["losses"] = ["margin"]
    # Four draws are often all wrong: an attack that believed them would hand in its first iterates.
    result = attacked(name, Errs(base), x, y, draws=4, **params)
    fallen = margin(base, x) - margin(base, result)
    assert (fallen >= 0).all(), "worse than the clean image"
    assert fallen.mean() >= (0.6 if name == "square" else 0.85) * reach(base, "Linf", 0.1)


def test_never_worse_than_the_clean_image_on_selection_draws() -> None:
    bare, x, y = linear(6.0)

    # Gradients that lead the wrong way: nothing beats the clean image.
    class Liar(Classifier):
        def logits(self, x: Tensor, noise: Noise, *, gradient: str = "exact", runs: int | None = None) -> Tensor:
            z = self.network(x)
            return z.detach() * 2 - z

    liar = Liar(bare.network, num_classes=2, input_shape=SHAPE)
    result = attacked("apgd", liar, x, y, steps=10)
    assert (margin(bare, result) <= margin(bare, x) + 1e-5).all()


def _evaluations(defense: Defense, x: Tensor, y: Tensor, **params: Any) -> tuple[Tensor, int]:
    """(Adversarial images, forwards + 2 backwards)."""
    given: dict[str, Any] = {"threat": ThreatModel("Linf", exact("1/10")), "target": None, "seed": 7, "num_classes": 2}
    with attack_view(defense, ViewSpec(), seed=0) as (view, meter):
        result = find_attack("bench:adaptive", params).run(view, x, y, **given, **params)
    return result, meter.evaluations


@pytest.mark.parametrize("share", [0.3, 1.3])
def test_images_leave_when_their_majority_is_lost(share: float) -> None:
    """Accuracy is Phi(margin / (.3 |w|)): the best attack leaves about 7% of the draws of all images, or 74%."""
    reached = reach(linear(0.0)[0], "Linf", 0.1)
    bare, x, y = linear(share * reached)
    noisy = Purified(AddNoise(0.3), bare)
    whole, cost = _evaluations(noisy, x, y, steps=20)
    early, less = _evaluations(noisy, x, y, steps=20, majority=65)
    if share < 1:
        assert (margin(bare, early) < 0).all()
        assert less < 0.5 * cost
    else:
        assert (margin(bare, early) > 0).all()
        assert torch.equal(early, whole)


@pytest.mark.parametrize("share", [1.3, 3.0])
def test_images_leave_when_they_are_screened_out(share: float) -> None:
    """The best attack leaves about 74% of the draws, of which 22% survive five submissions; or nearly all draws."""
    bare, x, y = linear(share * reach(linear(0.0)[0], "Linf", 0.1))
    noisy = Purified(AddNoise(0.3), bare)
    long: dict[str, Any] = {"steps": 20, "eot": [4, 64], "draws": 32}
    whole, cost = _evaluations(noisy, x, y, **long)
    early, less = _evaluations(noisy, x, y, **long, screen=[65, 5])
    if share > 2:
        assert torch.equal(early, whole)
        return
    draws = [noisy.logits(early, Noise.of(3, N).child(i)).argmax(1) == y for i in range(65)]
    survives = rob_at_m(torch.stack(draws).sum(0).numpy(), 65, 5)
    assert (survives < 0.5).mean() >= 0.98  # as the full count decides
    assert less < 0.6 * cost


def test_a_majority_is_of_whole_predictions() -> None:
    bare, x = classifier(), images(4)
    y = labels_of(bare, x)
    noisy = Purified(AddNoise(0.2), bare, runs=3)
    with pytest.raises(Unsupported, match=r"combine 3 runs.*on_top = true"):
        attacked("adaptive", noisy, x, y, steps=4, majority=9)
    attacked("adaptive", noisy, x, y, steps=4, majority=9, on_top=True)
    plain = attacked("adaptive", bare, x, y, steps=4)
    assert torch.equal(plain, attacked("adaptive", bare, x, y, steps=4, majority=9))  # without noise one draw decides


@pytest.mark.parametrize("name", ["adaptive", "apgd", "pgd", "transfer", "spsa", "square"])
def test_results_do_not_depend_on_the_batch(name: str) -> None:
    bare, x = classifier(), images(10)
    noisy, y = Purified(AddNoise(0.2), bare, runs=3), labels_of(bare, x)
    params: dict[str, Any] = {"queries": 30} if name == "square" else {"steps": 8}
    if name == "adaptive":
        params |= {"restarts": 3, "majority": 33, "on_top": True}
    whole = attacked(name, noisy, x, y, rows=1000, indices=torch.arange(10), **params)
    small = attacked(name, noisy, x, y, rows=7, indices=torch.arange(10), **params)
    assert torch.allclose(whole, small, atol=1e-5)
    some = torch.tensor([7, 2, 5])
    part = attacked(name, noisy, x[some], y[some], rows=1000, indices=some, **params)
    assert torch.allclose(whole[some], part, atol=1e-5)
    assert not torch.allclose(whole, attacked(name, noisy, x, y, rows=1000, seed=8, **params), atol=1e-3)


@pytest.mark.parametrize("name", ["adaptive", "apgd", "pgd", "spsa", "square"])
def test_proposals_and_the_defense_never_draw_from_one_stream(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    base, x, y = linear(6.0)
    drawn: dict[bool, set[tuple[int, ...]]] = {True: set(), False: set()}
    asked = []
    plain, logits = Noise.draw, Errs.logits

    def draw(noise: Noise, *what: Any) -> Tensor:
        drawn[bool(asked)] |= {tuple(key) for key in noise.keys.tolist()}
        return plain(noise, *what)

    def within(self: Errs, *what: Any, **more: Any) -> Tensor:
        asked.append(1)
        try:
            return logits(self, *what, **more)
        finally:
            asked.pop()

    monkeypatch.setattr(Noise, "draw", draw)
    monkeypatch.setattr(Errs, "logits", within)
    attacked(name, Errs(base), x, y, **({"queries": 20, "eot": 8} if name == "square" else {"steps": 6, "restarts": 2}))
    assert drawn[True]
    assert drawn[False]
    assert not drawn[True] & drawn[False]


@settings(max_examples=40)
@given(
    name=st.sampled_from(["adaptive", "apgd", "pgd", "transfer", "spsa", "square"]),
    norm=st.sampled_from(NORMS),
    reach=st.floats(0.01, 20),
    targets=st.sampled_from(["none", "next", "random"]),
    loss=st.sampled_from(["ce", "margin", "dlr", "ce-targeted", "dlr-targeted"]),
    noisy=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_ball_and_box(name: str, norm: Norm, reach: float, targets: str, loss: str, noisy: bool, seed: int) -> None:
    eps = min(reach, 1.0) if norm == "Linf" else reach
    bare, x = classifier(), images(4, seed=seed)
    y = labels_of(bare, x)
    purifier = AddNoise(0.2) if noisy else Squash(2)
    params: dict[str, Any] = {"queries": 12, "eot": 2} if name == "square" else {"steps": 5, "losses": [loss], "eot": 2}
    kept = x.clone()
    result = attacked(name, Purified(purifier, bare), x, y, norm, f"{eps:.4f}", targets=targets, draws=4, **params)
    threat = ThreatModel(norm, f"{eps:.4f}")  # type: ignore[arg-type]
    assert (distances(x, result)[norm] <= float(threat.eps) + threat.tolerance).all()
    assert in_box(result).all()
    assert torch.equal(x, kept)
    assert result.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()
    assert not result.requires_grad


def test_targeted_reaches_the_class() -> None:
    bare, x = classifier(), images(12)
    y = labels_of(bare, x)
    result = attacked("adaptive", bare, x, y, "L2", "6", targets="next", steps=40)
    assert (labels_of(bare, result) == (y + 1) % 10).float().mean() > 0.9


def test_cascade_takes_modes_in_order_and_only_those_standing() -> None:
    bare, x = classifier(), images(10)
    seen: list[tuple[str, int]] = []

    class Watched(Purified):
        def logits(self, x: Tensor, noise: Noise, *, gradient: str = "exact", runs: int | None = None) -> Tensor:
            if x.requires_grad:
                seen.append((gradient, len(x)))
            return super().logits(x, noise, gradient=gradient, runs=runs)

    y = labels_of(bare, x)
    noisy = Watched(AddNoise(0.05), bare)
    for gradient in ("exact", "bpda"):
        seen.clear()
        attacked("adaptive", noisy, x, y, eps="1/100", spec=ViewSpec(gradient), steps=6, eot=2)
        order = list(dict.fromkeys(mode for mode, _ in seen))
        known = [m for m in ("blind", "bpda", "surrogate", "exact") if m in noisy.gradients]
        assert order == known[: known.index(gradient) + 1]
    seen.clear()
    attacked("adaptive", noisy, x, y, eps="1", steps=6)
    assert {mode for mode, _ in seen} == {"blind"}  # all are broken before
