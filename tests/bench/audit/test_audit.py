"""The audit finds what is broken, passes what is not, and its parts do what they say."""

from dataclasses import replace
from fractions import Fraction

import audit_models
import numpy as np
import pytest
import torch
from audit_subjects import SMALL, subject
from certificate_checks import LINE, only_wide_differences
from networks import classifier

from bench.audit.budgets import BUDGETS, budget
from bench.audit.checks import gradients, radius, strength
from bench.audit.findings import Audit
from bench.audit.fixed_noise import Fixed
from bench.audit.run import audit
from bench.audit.subject import AttackRun, ImageAccuracies, worst
from bench.evaluation.certificates.certificate import Measurement
from defenses import load_model
from defenses.core.defense import UserModule
from defenses.core.noise import Noise
from defenses.data.dataset import load_dataset
from defenses.utils.errors import UserError
from defenses.zoo.obfuscated import Dithered, Quantised, Saturated

BROKEN = {"quantisation": Quantised, "randomness": Dithered, "vanishing": Saturated}


@pytest.fixture(scope="module")
def audits(tmp_path_factory):
    """Audits of the broken defenses and of an honest one, by name."""
    folder = tmp_path_factory.mktemp("audits")
    made = {"pgd-at": load_model("pgd-at")} | {name: make() for name, make in BROKEN.items()}
    return {name: audit(subject(d, folder, name=name), "quick") for name, d in made.items()}


def statuses(made):
    return {f.check: f.status for f in made.findings}


def test_an_honest_defense_passes(audits):
    assert audits["pgd-at"].failed == ()
    assert statuses(audits["pgd-at"])["binarisation"] == "pass"


@pytest.mark.parametrize("name", BROKEN)
def test_broken_defenses_are_flagged_by_independent_checks(audits, name):
    failed = set(audits[name].failed)
    assert {"binarisation", "white box against transfer", "white box against Square"} <= failed
    # Of the noise of the dithered one `bench:apgd` averages enough to reach every image when unbounded.
    assert ("nothing left when unbounded" in failed) == (name != "randomness")
    assert len(failed) > 3


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("quantisation", "zero gradients"),
        ("vanishing", "zero gradients"),
        ("randomness", "gradients agree between seeds"),
        ("randomness", "noise fixed"),
        ("quantisation", "gradient certificate"),
    ],
)
def test_each_mask_is_named(audits, name, check):
    assert statuses(audits[name])[check] == "fail"


def test_images_are_listed(audits):
    transfer = next(f for f in audits["quantisation"].findings if f.check == "white box against transfer")
    assert len(transfer.images) > SMALL.images / 2
    assert set(transfer.images) <= set(range(SMALL.images))


def test_the_same_seed_finds_the_same(audits, tmp_path):
    again = audit(subject(Dithered(), tmp_path, name="randomness"), "quick")
    assert again.as_dict() == audits["randomness"].as_dict()


def test_a_second_run_repeats_nothing(audits, tmp_path):
    one = subject(load_model("pgd-at"), tmp_path)
    first = strength.iterations(one)
    said = []
    again = replace_report(subject(Quantised(), tmp_path), said)  # another defense, but the same key
    assert strength.iterations(again) == first
    assert said == []


def replace_report(one, said):
    one.report = said.append
    return one


@pytest.mark.parametrize("change", [{"eps": "1/10"}, {"norm": "L2", "eps": 1}, {"other": False, "name": "else"}])
def test_the_key_tells_audits_apart(tmp_path, change):
    model = load_model("pgd-at")
    assert subject(model, tmp_path, **change).key != subject(model, tmp_path).key


def test_a_check_that_raises_fails_and_is_not_kept(tmp_path):
    one = subject(UserModule(audit_models.Detached(), stochastic=False), tmp_path)
    made = audit(one, "quick")
    assert {"zero gradients", "gradient certificate", "binarisation"} <= set(made.failed)
    kept = {f.name for f in (one.folder / one.key).iterdir()}
    assert "check-zero-gradients.json" in kept
    assert "check-binarisation.json" not in kept


def test_probabilities_are_flagged(tmp_path):
    found = gradients.outputs(subject(UserModule(audit_models.Probabilities(), stochastic=False), tmp_path))
    assert found.status == "fail"
    assert "remove the softmax, sigmoid or clamp" in found.evidence


def test_a_wider_ball_in_another_norm(tmp_path):
    one = subject(load_model("undefended"), tmp_path, norm="L2", eps=1, other=False)
    found = {f.check: f for f in radius.radii(one)}
    assert found["chance at Linf 1/2"].status == "not applicable"
    assert found["nothing left when unbounded"].status == "pass"
    assert "8 reaches every image" in found["nothing left when unbounded"].evidence


def test_what_is_measured_has_a_plot(audits):
    without = {
        f.check for made in audits.values() for f in made.findings if f.status != "not applicable" and not f.plot
    }
    assert without == set()
    plots = {f.check: f.plot for f in audits["quantisation"].findings}
    assert dict(zip(*plots["zero gradients"].series["share"], strict=True)) == {"images": 1, "pixels": 1}
    spare = dict(zip(*plots["gradient certificate"].series["decades"], strict=True))
    assert spare["float64 gradient against central differences"] == 16  # rounding is flat between its steps
    assert spare[LINE] == pytest.approx(np.log10(0.3))  # and a gradient of 0 misses all of the change across them
    half = plots["chance at Linf 1/2"]
    assert half.limit == 0.1
    assert half.series["accuracy"][1] == tuple(sorted(half.series["accuracy"][1]))


@pytest.mark.parametrize(
    ("name", "value", "limit", "least", "decades"),
    [
        ("float64", 1e-9, 1e-6, False, 3),
        ("float64", 1e-4, 1e-6, False, -2),
        ("float64", 0.0, 1e-6, False, 16),
        ("float64", float("inf"), 1e-6, False, -16),
        ("float64", float("nan"), 1e-6, False, -16),
        ("cosine of float32", 1 - 1e-6, 0.9999, True, 2),
        ("cosine of float32", 0.99, 0.9999, True, -2),
        ("the path contributes", 1e-2, 1e-9, True, 7),
    ],
)
def test_decades_inside_a_limit(name, value, limit, least, decades):
    assert gradients._spare(Measurement(name, value, limit, least)) == pytest.approx(decades, abs=1e-6)


# Attacks


@pytest.mark.parametrize("random", [True, False])
def test_randomised_defenses_meet_attacks_that_know_of_draws(tmp_path, random):
    said = []
    one = replace_report(subject(Dithered() if random else Saturated(), tmp_path, size=replace(SMALL, images=4)), said)
    strength.others(one)
    met = {text.split(" at ")[0] for text in said}
    own = {"bench:apgd", "bench:square", "bench:spsa"}
    assert met == {"foolbox:LinfPGD", "uniform"} | (own if random else {"autoattack:square", "torchattacks:SPSA"})


def test_the_white_box_of_a_randomised_defense_is_the_worst_of_two(tmp_path):
    one = subject(load_model("adp"), tmp_path, size=replace(SMALL, images=8))
    parts = [one.run(shot(mode)) for mode in one.modes for shot in (one.pgd, one.iterative)]
    assert one.strongest().selection == tuple(np.min([p.selection for p in parts], 0))


def test_square_makes_headway_against_noise(tmp_path):
    """AutoAttack's Square accepts lucky draws: of ADP's images it breaks hardly any."""
    one = subject(load_model("adp"), tmp_path, size=replace(BUDGETS["quick"], images=8))
    lucky = one.run(AttackRun("autoattack:square", {"n_queries": 100}, "exact", 4, "1/5"))
    assert one.run(strength._square(one)).accuracy < lucky.accuracy - 0.2


# Statistics


def test_worst_is_chosen_on_selection_and_counted_on_held_out_draws():
    lucky = ImageAccuracies(held_out=(0.9, 0.2), selection=(0.1, 0.9))
    other = ImageAccuracies(held_out=(0.5, 0.6), selection=(0.4, 0.3))
    assert worst([lucky, other]) == ImageAccuracies((0.9, 0.6), (0.1, 0.3))


def outcome(right, n):
    values = tuple([1.0] * right + [0.0] * (n - right))
    return ImageAccuracies(values, values)


@pytest.mark.parametrize(("lost", "of", "fails"), [(0, 100, False), (1, 100, False), (20, 100, True), (2, 1000, False)])
def test_the_odd_image_is_forgiven_and_many_are_not(lost, of, fails):
    paired = strength.stronger_by(outcome(of, of), outcome(of - lost, of))
    assert strength.clearly(paired) is fails


# Budgets and radii


def test_fixed_noise_is_one_for_all_images():
    model = Fixed(Dithered(), 3)
    x = load_dataset("digits").x[:1].expand(4, -1, -1, -1)
    logits = model.logits(x, Noise.of(0, 4))
    assert torch.equal(logits, logits[:1].expand(4, -1))
    assert torch.allclose(logits[:2], model.logits(x[:2], Noise.of(9, 2)), atol=1e-4)


def test_an_unknown_budget_is_one_line():
    with pytest.raises(UserError, match=r'unknown budget "fulll".*full'):
        budget("fulll")


def test_grid_has_the_threat_in_it(tmp_path):
    one = subject(load_model("undefended"), tmp_path, eps="1/5", other=False)
    plot = radius.radii(one)[0].plot
    assert list(plot.series["white box"][0]) == [0.1, 0.2, float(Fraction(3, 10)), 0.5, 1.0]
    assert np.all(np.diff(plot.series["white box"][1]) <= 0)


def test_grid_ends_where_the_ball_is_the_whole_box(tmp_path):
    one = subject(load_model("undefended"), tmp_path, eps="4/5", other=False)
    assert list(radius.radii(one)[0].plot.series["white box"][0]) == [0.4, 0.5, 0.8, 1.0]


def test_a_certificate_that_is_not_measurable_is_no_failed_check(tmp_path, monkeypatch):
    one = subject(UserModule(classifier("resnet", side=8, classes=10), stochastic=False), tmp_path)
    assert gradients.certificate(one).status == "pass"
    only_wide_differences(monkeypatch)
    said = gradients.certificate(one)
    assert said.status == "not measurable"
    assert said.evidence.startswith("float64 gradient against central differences: ")
    assert said.evidence.endswith(" of 12 points left out, at kinks")
    made = Audit("it", {}, (said,))
    assert (made.failed, made.status, made.as_dict()["passed"]) == ((), "not measurable", False)


def test_a_piecewise_linear_energy_is_judged_by_finite_differences(tmp_path):
    """The energy of the EBM's paper: exact gradients equal BPDA's, which is no fault of the defense."""
    from defenses.core.defense import Purified
    from defenses.networks.registry import build_network
    from defenses.purifiers.langevin import Langevin

    energy = build_network("energy-conv", in_channels=1, size=8, features=4)
    defense = Purified(Langevin(energy, eps=0.02, steps=5), load_model("undefended"), runs=1).requires_grad_(False)
    one = subject(defense, tmp_path, size=replace(SMALL, images=8))
    assert not one.informative
    assert one.modes == ("exact", "bpda", "smooth", "difference")
    said = gradients.certificate(one)
    assert said.status == "not applicable"
    assert "smooth and difference" in said.evidence
    assert subject(load_model("adp"), tmp_path, size=replace(SMALL, images=8)).modes == ("exact", "bpda")
