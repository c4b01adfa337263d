"""Adapters: names, parameters, the contract of `Attack.run`, and bit-identity with the libraries called directly."""

from __future__ import annotations

import inspect
import math
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import AddNoise, classifier, images, labels_of
from torch import Tensor

from bench.suites import Attack, Unsupported, attack_names, find_attack
from bench.threat import Norm, ThreatModel, distances, in_box, target_labels
from bench.view import attack_view
from bench.viewspec import ViewSpec
from defenses.base import Defense, Purified
from defenses.errors import UserError

EPS = {"Linf": "1/10", "L2": "1", "L1": "5", "L0": "5"}
SEED = 5
# Small budgets, given to every attack that takes them.
BUDGET = {"steps": 12, "n_iter": 10, "n_queries": 40, "n_restarts": 1, "max_iterations": 10}
SKIPPED = ("L0BrendelBethgeAttack", "L1BrendelBethgeAttack", "LinfinityBrendelBethgeAttack")  # numba: 20 s each


def budget(name: str) -> dict[str, Any]:
    params: dict[str, Any] = {"attacks": ["apgd-ce", "square"]} if name == "autoattack:custom" else {}
    for key, value in BUDGET.items():
        try:
            find_attack(name, {**params, key: value})
        except UserError:
            continue
        params[key] = value
    return params


def threat_of(norm: Norm, targets: str = "none") -> ThreatModel:
    return ThreatModel(norm, EPS[norm], targets=targets)  # type: ignore[arg-type]


def run(
    attack: Attack, defense: Defense, x: Tensor, y: Tensor, threat: ThreatModel, params: dict[str, Any], **other: Any
) -> Tensor:
    classes = defense.num_classes or 10
    target = target_labels(threat, y, torch.arange(len(x)), classes, 0)
    with attack_view(defense, other.pop("spec", ViewSpec()), seed=3) as (view, _):
        given = {"target": target, "seed": SEED, "num_classes": classes} | other
        return attack.run(view, x, y, threat=threat, **given, **params)  # type: ignore[no-any-return]


def first_that_runs(name: str, defense: Defense, x: Tensor, y: Tensor, targets: str = "none") -> Any:
    """(norm, x_adv) of the first norm that an attack supports; else the reasons."""
    attack, params, reasons = find_attack(name, budget(name)), budget(name), []
    for norm in EPS:
        try:
            return norm, run(attack, defense, x, y, threat_of(norm, targets), params)  # type: ignore[arg-type]
        except Unsupported as reason:
            reasons.append(str(reason))
    return None, reasons


NAMES = [n for n in attack_names() if not n.endswith("BrendelBethgeAttack")]
CLASSES = [n for n in NAMES if n.startswith(("foolbox:", "torchattacks:"))]


# --- names and parameters -------------------------------------------------------------------------------------------


def test_names_are_read_without_importing_anything_heavy() -> None:
    code = (
        "import sys; from bench.suites import attack_names, find_attack\n"
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

    from bench.suites import foolbox as adapter

    for local in adapter.names():
        cls = getattr(foolbox.attacks, local)
        facts = adapter._facts(local)
        assert ("MinimizationAttack" in facts.bases) == issubclass(cls, foolbox.attacks.base.MinimizationAttack)
        if cls.__init__ is not object.__init__:
            assert list(facts.parameters.names) == [n for n in inspect.signature(cls.__init__).parameters if n != "self"]


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
    assert not find_attack("torchattacks:EOTPGD", {"eot_iter": 20}).warnings
    assert "10 iterations" in find_attack("torchattacks:AutoAttack", {}).warnings[0]
    assert len(find_attack("torchattacks:OnePixel", {}).warnings) == 2
    assert "nb_iter 1 is weak" in find_attack("torchattacks:SPSA", {}).warnings[0]
    short = find_attack("torchattacks:PGD", {}).notes(threat_of("Linf"), 10, {"alpha": 0.001, "steps": 10})
    assert "cannot cross the ball" in short[0]
    assert "apgd-t left out" in find_attack("autoattack:standard", {}).notes(threat_of("Linf"), 3, {})[0]


def test_versions_are_those_installed() -> None:
    import foolbox
    import torchattacks

    assert find_attack("foolbox:LinfPGD").version == f"foolbox {foolbox.__version__}"
    assert find_attack("torchattacks:PGD").version == f"torchattacks {torchattacks.__version__}"


# --- the contract ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_contract(name: str) -> None:
    defense, x = classifier(), images(6)
    y, before = labels_of(defense, x), x.clone()
    generators = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    norm, x_adv = first_that_runs(name, defense, x, y)
    if norm is None:
        assert all("\n" not in reason for reason in x_adv)
        return
    assert x_adv.shape == x.shape
    assert x_adv.dtype == torch.float32
    assert not x_adv.requires_grad
    assert torch.equal(x, before)
    assert x_adv.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()
    assert in_box(x_adv).all()
    if not find_attack(name, budget(name)).minimisation:
        threat = threat_of(norm)
        assert (distances(x, x_adv)[norm] <= float(threat.eps) + threat.tolerance).all()
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert np.random.get_state()[1].tolist() == generators[1]  # noqa: NPY002
    assert random.getstate() == generators[2]
    again = first_that_runs(name, defense, x, y)[1]
    assert torch.equal(again, x_adv)


@pytest.mark.parametrize("name", CLASSES)
def test_targeted_runs_or_says_why(name: str) -> None:
    defense, x = classifier(3), images(12)
    y = labels_of(defense, x)
    norm, _ = first_that_runs(name, defense, x, y, targets="next")
    untargeted, _ = first_that_runs(name, defense, x, y)
    if norm is None and untargeted is not None:
        _, reasons = first_that_runs(name, defense, x, y, targets="next")
        assert any("targeted" in r or "target class" in r or "taken for class" in r for r in reasons)


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
        with pytest.raises(Unsupported, match="no end if answers vary|answered alike"):
            run(find_attack(name), defense, x, y, threat_of(norm), {})  # type: ignore[arg-type]
    for name in ("autoattack:rand", "autoattack:square", "torchattacks:EOTPGD", "foolbox:LinfPGD"):
        first, again = (run(find_attack(name), defense, x, y, threat_of("Linf"), budget(name)) for _ in range(2))
        assert torch.equal(first, again)


# --- bit-identity with the libraries --------------------------------------------------------------------------------


class seeded:  # noqa: N801
    """The seeding rule of the adapters, written anew."""

    def __enter__(self) -> None:
        self.before = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
        torch.manual_seed(SEED)
        np.random.seed(SEED)  # noqa: NPY002
        random.seed(SEED)

    def __exit__(self, *exc: object) -> None:
        torch.set_rng_state(self.before[0])
        np.random.set_state(self.before[1])  # noqa: NPY002
        random.setstate(self.before[2])


def directly(name: str, norm: str, model: torch.nn.Module, x: Tensor, y: Tensor, params: dict[str, Any]) -> Tensor:
    suite, local = name.split(":")
    with seeded():
        if suite == "autoattack":
            return direct_autoattack(local, norm, model, x.clone(), y, params)
        if suite == "foolbox":
            return direct_foolbox(local, norm, model, x.clone(), y, params)
        return direct_torchattacks(local, norm, model, x.clone(), y, params)


def direct_autoattack(local: str, norm: str, model: Any, x: Tensor, y: Tensor, params: dict[str, Any]) -> Tensor:
    from pyautoattack import AutoAttack
    from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

    options: dict[str, Any] = {"norm": norm, "eps": float(threat_of(norm).eps), "seed": SEED}  # type: ignore[arg-type]
    if local.endswith("-best-loss"):
        loss = local.split("-")[1]
        apgd = APGDAttack(model, loss=loss, n_iter=params["n_iter"], n_restarts=1, **options)
        return apgd.perturb(x, y, best_loss=True)  # type: ignore[no-any-return]
    if local in ("standard", "plus", "rand"):
        suite = AutoAttack(model, version=local, **options)
    else:
        suite = AutoAttack(model, version="custom", attacks=params.get("attacks", [local]), **options)
    eot, l1 = suite.apgd.eot_iter, suite.apgd.use_largereps
    common = {"n_iter": params.get("n_iter", 100), "n_restarts": params.get("n_restarts", 1), "use_largereps": l1}
    suite.apgd = APGDAttack(model, eot_iter=eot, **common, **options)
    suite.apgd_targeted = APGDAttack_targeted(model, n_target_classes=9, **common, **options)
    suite.fab.n_iter, suite.fab.n_restarts = params.get("n_iter", 100), params.get("n_restarts", 5)
    suite.square.n_queries = params.get("n_queries", 5000)
    return suite.run_standard_evaluation(x, y, batch_size=len(x))[0]  # type: ignore[no-any-return]


def direct_foolbox(local: str, norm: str, model: Any, x: Tensor, y: Tensor, params: dict[str, Any]) -> Tensor:
    import foolbox

    base = foolbox.attacks.base
    cls = getattr(foolbox.attacks, local)
    extra: dict[str, Any] = {}
    if "distance" in inspect.signature(cls.__init__).parameters:
        order = {"Linf": math.inf, "L2": 2, "L1": 1, "L0": 0}[norm]
        extra["distance"] = foolbox.distances.LpDistance(order)
    if local == "HopSkipJumpAttack":
        extra["constraint"] = norm.lower()
    fmodel = foolbox.PyTorchModel(model.eval(), bounds=(0, 1), device="cpu")
    attack = cls(**params, **extra)
    if local == "DatasetAttack":
        attack.feed(fmodel, x)
    eps = None if issubclass(cls, base.MinimizationAttack) else float(threat_of(norm).eps)  # type: ignore[arg-type]
    return attack(fmodel, x, foolbox.Misclassification(y), epsilons=eps)[1]  # type: ignore[no-any-return]


def direct_torchattacks(local: str, norm: str, model: Any, x: Tensor, y: Tensor, params: dict[str, Any]) -> Tensor:
    import torchattacks

    cls = getattr(torchattacks, local)
    takes = inspect.signature(cls.__init__).parameters
    eps = float(threat_of(norm).eps)  # type: ignore[arg-type]
    given = {"eps": eps, "max_epsilon": eps, "pixels": int(eps), "norm": norm, "n_classes": 10, "seed": SEED}
    given = {k: v for k, v in given.items() if k in takes} | params
    if "alpha" in takes:
        given["alpha"] = takes["alpha"].default * (eps / takes["eps"].default)
    x_adv: Tensor = cls(model.eval(), **given)(x, y)
    return x_adv.clamp(0, 1) if local.startswith("EAD") else x_adv  # it leaves the box by 1e-5


@pytest.mark.parametrize("name", [n for n in NAMES if ":" in n])
def test_bit_identical_to_the_library(name: str) -> None:
    defense, x, params = classifier(), images(6), budget(name)
    y = labels_of(defense, x)
    y[0] = (y[0] + 1) % 10  # one image that is wrong from the start
    attack, compared = find_attack(name, params), 0
    for norm in EPS:
        try:
            ours = run(attack, defense, x, y, threat_of(norm), params)  # type: ignore[arg-type]
        except Unsupported:
            continue
        theirs = directly(name, norm, defense.network, x, y, params)
        assert torch.equal(ours, theirs.detach())
        compared += 1
    only_colour = name.split(":")[1] in ("TIFGSM", "PIFGSM", "PIFGSMPP")
    impossible = ("SpatialAttack", "GenAttack", "BinarizationRefinementAttack", "LGV", "MultiAttack")
    assert compared or only_colour or name.split(":")[1] in impossible


@pytest.mark.slow
def test_bit_identical_brendel_bethge() -> None:
    pytest.importorskip("numba")
    defense, x = classifier(), images(4)
    y = labels_of(defense, x)
    name, params = "foolbox:L2BrendelBethgeAttack", {"steps": 10}
    ours = run(find_attack(name, params), defense, x, y, threat_of("L2"), params)
    assert torch.equal(ours, directly(name, "L2", defense.network, x, y, params))


def test_fra31_package_is_preferred_and_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same program under fra31's signature, as a stand-in for that package."""
    (tmp_path / "autoattack").mkdir()
    (tmp_path / "autoattack" / "__init__.py").write_text(
        "from pyautoattack import AutoAttack as Same\n"
        "class AutoAttack(Same):\n"
        "    def __init__(self, model, norm='Linf', eps=.3, seed=None, verbose=True, attacks_to_run=[],\n"
        "                 version='standard', is_tf_model=False, device='cuda', log_path=None):\n"
        "        super().__init__(model, norm=norm, eps=eps, seed=seed, device=device, version=version,\n"
        "                         attacks=attacks_to_run or None)\n"
        "    def run_standard_evaluation(self, x_orig, y_orig, bs=250, return_labels=False):\n"
        "        return super().run_standard_evaluation(x_orig, y_orig, batch_size=bs)[0]\n"
    )
    (tmp_path / "autoattack-0.1.dist-info").mkdir()
    (tmp_path / "autoattack-0.1.dist-info" / "METADATA").write_text("Name: autoattack\nVersion: 0.1\n")
    defense, x = classifier(), images(6)
    y = labels_of(defense, x)
    names = ("autoattack:standard", "autoattack:apgd-dlr", "autoattack:custom")
    theirs = [run(find_attack(n, budget(n)), defense, x, y, threat_of("Linf"), budget(n)) for n in names]
    monkeypatch.syspath_prepend(tmp_path)
    for n, expected in zip(names, theirs, strict=True):
        attack = find_attack(n, budget(n))
        assert attack.version == "autoattack 0.1"
        assert torch.equal(run(attack, defense, x, y, threat_of("Linf"), budget(n)), expected)
    sys.modules.pop("autoattack", None)


# --- what the harness brings itself ---------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", list(EPS))
def test_uniform_noise_depends_on_the_index_and_not_on_the_batch(norm: Norm) -> None:
    defense, x = classifier(), images(8)
    y, attack, threat = labels_of(defense, x), find_attack("uniform"), threat_of(norm)
    index = torch.tensor([40, 3, 17, 5, 6, 99, 1, 0])
    whole = run(attack, defense, x, y, threat, {}, indices=index)
    part = run(attack, defense, x[2:5], y[2:5], threat, {}, indices=index[2:5])
    assert torch.equal(part, whole[2:5])
    assert not torch.equal(run(attack, defense, x, y, threat, {}, indices=index, seed=6), whole)


@pytest.mark.parametrize(("norm", "power"), [("Linf", 64), ("L2", 64), ("L1", 64)])
def test_uniform_noise_fills_the_ball(norm: Norm, power: int) -> None:
    """In the ball of dimension d the radius to the power d is uniform on [0, 1] (the box does not bind here)."""
    x = torch.full((2000, 1, 8, 8), 0.5)
    threat = ThreatModel(norm, "1/10")
    x_adv = run(find_attack("uniform"), classifier(), x, torch.zeros(2000, dtype=torch.long), threat, {})
    filled = ((distances(x, x_adv)[norm] / 0.1) ** power).sort().values
    # Kolmogorov and Smirnov: beyond 1.95 / sqrt(n) once in a thousand.
    assert (filled - (torch.arange(2000) + 0.5) / 2000).abs().max() < 1.95 / math.sqrt(2000) + 1e-3
    assert abs(float((x_adv - x).mean())) < 1e-3


def test_uniform_noise_of_pixels_changes_as_many_as_it_may() -> None:
    defense, x = classifier(channels=3), images(8, 3)
    x_adv = run(find_attack("uniform"), defense, x, labels_of(defense, x), threat_of("L0"), {})
    assert (distances(x, x_adv)["L0"] == 5).all()


OWN = """
import torch

def shift(view, x, y, *, threat, target, seed, num_classes, indices, amount=0.5):
    return x.add_(amount * float(threat.eps) * torch.rand(1)).clamp_(0, 1)

def plain(view, x, y, threat):
    return x

def needs(view, x, y, *, steps):
    return x

plain.minimisation = True
"""


def test_a_function_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    defense, x = classifier(), images(4)
    y, before, threat = labels_of(defense, x), x.clone(), threat_of("Linf")
    attack = find_attack(f"{file}:shift", {"amount": 0.25})
    first, again = (run(attack, defense, x, y, threat, {"amount": 0.25}) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(x, before)
    assert 0 < distances(x, first)["Linf"].max() <= 0.025 + 1e-6
    assert attack.version.startswith("mine.py ")
    assert not attack.minimisation
    assert torch.equal(run(find_attack("mine:shift"), defense, x, y, threat, {}), run(attack, defense, x, y, threat, {}))
    assert find_attack("mine:plain").minimisation
    assert torch.equal(run(find_attack("mine.py:plain"), defense, x, y, threat, {}), x)
    with pytest.raises(UserError, match="did you mean shift"):
        find_attack(f"{file}:shft")
    with pytest.raises(UserError, match="did you mean amount"):
        find_attack("mine.py:shift", {"amuont": 1})
    with pytest.raises(UserError, match='needs the parameter "steps"'):
        find_attack("mine.py:needs")
