"""Adapters: names, parameters, and the contract of `Attack.run`."""

from __future__ import annotations

import inspect
import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from models import AddNoise, Linear, classifier, images, labels_of, seeded
from suite_runs import NAMES, budget, first_that_runs, run, threat_of

from bench.attacks.registry import Unsupported, attack_names, find_attack
from bench.spec.threat import Norm, ThreatModel, distances
from defenses.core.defense import Classifier, Purified
from defenses.utils.errors import UserError


def test_names_are_read_without_importing_anything_heavy() -> None:
    code = (
        "import sys; from bench.attacks.registry import attack_names, find_attack\n"
        "names = attack_names()\n"
        "for n in names: n == 'autoattack:custom' or find_attack(n, {})\n"
        "print(len(names), [m for m in ('torch', 'numpy', 'foolbox', 'torchattacks') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    count, loaded = out.split(maxsplit=1)
    assert int(count) > 100
    assert loaded.strip() == "[]"


def test_every_name_of_the_libraries_is_there() -> None:
    import foolbox
    import torchattacks

    fool = {n for n, c in vars(foolbox.attacks).items() if inspect.isclass(c) and issubclass(c, foolbox.attacks.Attack)}
    assert {n.split(":")[1] for n in attack_names() if n.startswith("foolbox:")} == fool - {"Attack"}
    assert {n.split(":")[1] for n in attack_names() if n.startswith("torchattacks:")} == set(torchattacks.__all__)


def test_kind_and_parameters_read_from_source_are_those_of_the_classes() -> None:
    import foolbox

    from bench.attacks.libraries import foolbox as adapter

    for local in adapter.names():
        cls = getattr(foolbox.attacks, local)
        facts = adapter.SOURCE.facts(local)
        assert ("MinimizationAttack" in facts.bases) == issubclass(cls, foolbox.attacks.base.MinimizationAttack)
        if cls.__init__ is not object.__init__:
            assert list(facts.parameters.names) == [
                n for n in inspect.signature(cls.__init__).parameters if n != "self"
            ]


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("autoattack:apgdce", {}, 'unknown attack "autoattack:apgdce"; did you mean autoattack:apgd-ce'),
        ("foolbox:LinfPDG", {}, "did you mean foolbox:LinfPGD"),
        ("torchatacks:PGD", {}, "did you mean torchattacks:PGD"),
        ("unifrom", {}, "did you mean uniform"),
        ("torchattacks:PGD", {"stps": 3}, 'unknown parameter of torchattacks:PGD "stps"; did you mean steps'),
        ("foolbox:LinfPGD", {"step": 3}, "did you mean steps"),
        ("autoattack:square", {"n_querys": 3}, "did you mean n_queries"),
        ("autoattack:apgd-ce", {"n_iter": 0}, "n_iter is 0; it must be a whole number, at least 1"),
        ("autoattack:custom", {}, 'needs a list "attacks"'),
        ("autoattack:custom", {"attacks": ["apgd"]}, "did you mean apgd-t or apgd-ce"),
        ("foolbox:HopSkipJumpAttack", {"init_attack": "DatasetAtack"}, "did you mean DatasetAttack"),
        ("uniform", {"eps": 3}, 'unknown parameter of uniform "eps"'),
        ("no/such.py:attack", {}, "there is no file"),
        ("json:dumbs", {}, "did you mean dumps"),
    ],
)
def test_bad_names_and_parameters(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        find_attack(name, params)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_weak_defaults_are_said() -> None:
    assert "eot_iter 2 is weak" in find_attack("torchattacks:EOTPGD", {}).warnings[0]
    assert not find_attack("torchattacks:EOTPGD", {"eot_iter": 20, "steps": 100}).warnings
    for name, steps in (("torchattacks:PGD", 10), ("torchattacks:CW", 50), ("foolbox:PGD", 40), ("foolbox:L2PGD", 50)):
        assert f"default of {steps} steps is short" in " ".join(find_attack(name).warnings)
        assert "short" not in " ".join(find_attack(name, {"steps": 100}).warnings)
    for name in ("torchattacks:DeepFool", "foolbox:L2DeepFoolAttack", "foolbox:LinfDeepFoolAttack"):
        assert "greedy" in find_attack(name).warnings[0]
    for name in ("PIFGSM", "PIFGSMPP"):
        assert find_attack(f"torchattacks:{name}").warnings == (
            "its default of 10 steps is short; give num_iter_set = 100 or more",
        )
        assert not find_attack(f"torchattacks:{name}", {"num_iter_set": 100}).warnings
    for name in ("FGSM", "FFGSM"):
        assert find_attack(f"torchattacks:{name}").warnings == ("takes one step; report no robustness from it alone",)
    assert "greedy" in find_attack("torchattacks:SparseFool").warnings[0]
    assert "one class alone" in find_attack("torchattacks:JSMA").warnings[0]
    assert find_attack("torchattacks:Pixle").warnings == ("max_iterations 10 is weak; publish nothing below 50",)
    assert not find_attack("torchattacks:Pixle", {"max_iterations": 50}).warnings
    for name in ("torchattacks:Square", "autoattack:standard", "foolbox:DDNAttack"):
        assert not find_attack(name).warnings
    assert "10 iterations" in find_attack("torchattacks:AutoAttack", {}).warnings[0]
    assert len(find_attack("torchattacks:OnePixel", {}).warnings) == 2
    assert "nb_iter 1 is weak" in find_attack("torchattacks:SPSA", {}).warnings[0]
    short = find_attack("torchattacks:PGD", {}).notes(threat_of("Linf"), 10, {"alpha": 0.001, "steps": 10})
    assert "cannot cross the ball" in short[0]
    assert "apgd-t left out" in find_attack("autoattack:standard", {}).notes(threat_of("Linf"), 3, {})[0]


@pytest.mark.parametrize(
    ("name", "key", "few", "enough"),
    [
        ("autoattack:apgd-ce", "n_iter", 1, 100),
        ("autoattack:standard", "n_iter", 99, 100),
        ("autoattack:standard", "n_queries", 200, 2000),
        ("autoattack:square", "n_queries", 10, 2000),
        ("foolbox:L2DeepFoolAttack", "steps", 2, 50),
        ("foolbox:LinfPGD", "steps", 40, 100),
        ("foolbox:LInfFMNAttack", "steps", 20, 100),
        ("foolbox:BoundaryAttack", "steps", 500, 2000),
        ("foolbox:HopSkipJumpAttack", "steps", 10, 64),
        ("foolbox:L2RepeatedAdditiveGaussianNoiseAttack", "repeats", 5, 100),
        ("torchattacks:PGD", "steps", 10, 100),
        ("torchattacks:DeepFool", "steps", 5, 50),
        ("torchattacks:PIFGSM", "num_iter_set", 10, 100),
        ("torchattacks:Square", "n_queries", 100, 2000),
        ("torchattacks:EADL1", "max_iterations", 10, 100),
    ],
)
def test_short_budgets_of_a_board_are_said(name: str, key: str, few: int, enough: int) -> None:
    def short(value: int) -> list[str]:
        return [w for w in find_attack(name, {key: value}).warnings if "short" in w]

    assert short(few) == [f"{key} = {few} is short; give {enough} or more"]
    assert short(enough) == []


def test_a_budget_that_an_attack_does_not_spend_is_not_said() -> None:
    assert not find_attack("autoattack:custom", {"attacks": ["apgd-ce"], "n_iter": 100}).warnings
    assert find_attack("bench:adaptive", {"steps": 20}).warnings == ("steps = 20 is short; give 40 or more",)
    assert find_attack("bench:square", {"queries": 200}).warnings == ("queries = 200 is short; give 500 or more",)
    assert not any(find_attack(f"bench:{name}").warnings for name in ("adaptive", "apgd", "pgd", "spsa", "square"))
    assert len(find_attack("torchattacks:Pixle", {"max_iterations": 5}).warnings) == 1
    assert not any("short" in w for w in find_attack("torchattacks:OnePixel", {"steps": 5}).warnings)


def test_versions_are_those_installed() -> None:
    import foolbox
    import torchattacks

    assert find_attack("foolbox:LinfPGD").version == f"foolbox {foolbox.__version__}"
    assert find_attack("torchattacks:PGD").version == f"torchattacks {torchattacks.__version__}"


@pytest.mark.parametrize(
    ("name", "norm", "params"),
    [
        ("autoattack:square", "Linf", {"n_queries": 300}),
        ("foolbox:LinfPGD", "Linf", {}),
        ("foolbox:DDNAttack", "L2", {}),
        ("torchattacks:PGD", "Linf", {"steps": 40}),
        ("torchattacks:PGDL2", "L2", {"steps": 40}),
        ("torchattacks:Square", "Linf", {"n_queries": 300}),
    ],
)
def test_targeted_attacks_reach_their_target(name: str, norm: Norm, params: dict[str, Any]) -> None:
    defense, x = classifier(3), images(12)
    y = labels_of(defense, x)
    threat = ThreatModel(norm, "1/5" if norm == "Linf" else "2", targets="next")
    x_adv = run(find_attack(name, params), defense, x, y, threat, params)
    assert (defense.network(x_adv).argmax(1) == (y + 1) % 3).float().mean() > 0.6


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("name", NAMES)
def test_few_classes(name: str, classes: int) -> None:
    defense, x = classifier(classes), images(4)
    y = labels_of(defense, x)
    norm, result = first_that_runs(name, defense, x, y)
    if norm is None and first_that_runs(name, classifier(), x, labels_of(classifier(), x))[0] is not None:
        assert classes < 4
        assert any(f"the data set has {classes}" in reason for reason in result)


@pytest.mark.parametrize("name", ["TIFGSM", "PIFGSM", "PIFGSMPP"])
def test_three_channels(name: str) -> None:
    grey, colour = classifier(), classifier(channels=3)
    attack, threat = find_attack(f"torchattacks:{name}"), threat_of("Linf")
    with pytest.raises(Unsupported, match="needs images of 3 channels, these have 1"):
        run(attack, grey, images(2), torch.tensor([0, 1]), threat, {})
    x_adv = run(attack, colour, images(2, 3), torch.tensor([0, 1]), threat, {})
    assert (distances(images(2, 3), x_adv)["Linf"] <= 0.1 + threat.tolerance).all()


REFUSED = [  # name, parameters, norm, classes, shape of the images, what the adapter says, what the library says
    ("torchattacks:TIFGSM", {}, "Linf", 10, (1, 8, 8), "3 channels", "3 channels"),
    ("torchattacks:PIFGSM", {}, "Linf", 10, (1, 8, 8), "3 channels", "3 channels"),
    ("torchattacks:PIFGSMPP", {}, "Linf", 10, (1, 8, 8), "3 channels", "3 channels"),
    ("torchattacks:TIFGSM", {}, "Linf", 10, (3, 12, 8), "square images, these are 12x8", "shapes cannot be"),
    ("torchattacks:DIFGSM", {}, "Linf", 10, (3, 12, 8), "square images, these are 12x8", "shapes cannot be"),
    ("torchattacks:Pixle", {}, "L0", 10, (3, 12, 8), "square images, these are 12x8", "out of bounds"),
    ("torchattacks:Square", {}, "L2", 10, (3, 8, 12), "square images in L2", "must match"),
    ("torchattacks:Square", {}, "L2", 10, (3, 14, 14), "tiles fit .*, these are 14x14", "must match"),
    ("autoattack:square", {}, "L2", 10, (3, 14, 14), "tiles fit .*, these are 14x14", "must match"),
    ("autoattack:square", {}, "L1", 10, (3, 12, 8), "tiles fit .*, these are 12x8", "broadcast shape"),
    ("autoattack:apgd-dlr", {}, "Linf", 2, (1, 8, 8), "needs 3 classes, the data set has 2", "out of bounds"),
    ("autoattack:apgd-t", {}, "Linf", 3, (1, 8, 8), "needs 4 classes, the data set has 3", "out of bounds"),
    ("torchattacks:APGD", {"loss": "dlr"}, "Linf", 2, (1, 8, 8), "needs 3 classes", "out of bounds"),
    ("torchattacks:APGDT", {}, "Linf", 3, (1, 8, 8), "needs 4 classes", "out of bounds"),
]


def linear_model(classes: int, shape: tuple[int, ...]) -> Classifier:
    """A linear model of any size of image."""
    weight = seeded(classes, math.prod(shape)) * 0.3
    return Classifier(Linear(weight, -weight.sum(1) / 2), num_classes=classes, input_shape=shape)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "params", "norm", "classes", "shape", "said", "fault"), REFUSED)
def test_what_is_refused_would_fail_in_the_library(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    params: dict[str, Any],
    norm: Norm,
    classes: int,
    shape: tuple[int, ...],
    said: str,
    fault: str,
) -> None:
    defense, x = linear_model(classes, shape), (seeded(4, *shape, seed=1) * 0.4 + 0.5).clamp(0, 1)
    y, threat = labels_of(defense, x), ThreatModel(norm, "1/1000" if norm != "L0" else "5")
    with pytest.raises(Unsupported, match=said):
        run(find_attack(name, params), defense, x, y, threat, params)
    monkeypatch.setattr("bench.attacks.libraries.torchattacks._refuse", lambda *_: None)
    monkeypatch.setattr("bench.attacks.libraries.autoattack._LEAST_CLASSES", {})
    monkeypatch.setattr("bench.attacks.libraries.autoattack.check_tiles", lambda *_: None)
    with pytest.raises((RuntimeError, IndexError), match=fault):
        run(find_attack(name, params), defense, x, y, threat, params)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 12), (13, 13), (16, 16), (28, 28), (40, 32)])
def test_sizes_that_the_tiles_of_square_fit(height: int, width: int) -> None:
    shape = (1, height, width)
    defense, x = linear_model(10, shape), (seeded(2, *shape, seed=1) * 0.4 + 0.5).clamp(0, 1)
    x_adv = run(find_attack("autoattack:square"), defense, x, labels_of(defense, x), ThreatModel("L2", "1/1000"),
                {"n_queries": 6})  # fmt: skip
    assert x_adv.shape == x.shape


@pytest.mark.parametrize(
    ("name", "norm", "targets", "reason"),
    [
        ("autoattack:standard", "L0", "none", "not L0"),
        ("autoattack:apgd-t", "Linf", "next", "only square takes a given one"),
        ("foolbox:LinfPGD", "L2", "none", "LinfProjectedGradientDescentAttack works in Linf, the threat is L2"),
        ("foolbox:SpatialAttack", "Linf", "none", "no norm bounds it"),
        ("foolbox:GenAttack", "Linf", "none", "only runs targeted"),
        ("foolbox:VirtualAdversarialAttack", "L2", "none", 'needs "steps"'),
        ("foolbox:BinarizationRefinementAttack", "L2", "none", "only refines"),
        ("torchattacks:PGD", "L2", "none", "PGD works in Linf, the threat is L2"),
        ("torchattacks:FAB", "L1", "none", "fails in L1"),
        ("torchattacks:TPGD", "Linf", "next", "no targeted mode"),
        ("torchattacks:LGV", "Linf", "none", "train loader"),
        ("torchattacks:MultiAttack", "Linf", "none", "one by one"),
    ],
)
def test_pairs_that_cannot_run_say_why(name: str, norm: Norm, targets: str, reason: str) -> None:
    defense, x = classifier(), images(4)
    with pytest.raises(Unsupported, match=reason):
        run(find_attack(name), defense, x, labels_of(defense, x), threat_of(norm, targets), {})


def test_stochastic_views() -> None:
    defense, x = Purified(AddNoise(0.5), classifier()), images(6)
    y = labels_of(defense.classifier, x)
    for name, norm in (("foolbox:HopSkipJumpAttack", "L2"), ("foolbox:PointwiseAttack", "L0")):
        with pytest.raises(Unsupported, match=r"no end if answers vary|answered alike"):
            run(find_attack(name), defense, x, y, threat_of(norm), {})  # type: ignore[arg-type]
    for name in ("autoattack:rand", "autoattack:square", "torchattacks:EOTPGD", "foolbox:LinfPGD"):
        first, again = (run(find_attack(name), defense, x, y, threat_of("Linf"), budget(name)) for _ in range(2))
        assert torch.equal(first, again)
