"""Attacks through adapter and view against the libraries called directly: the same bits."""

from __future__ import annotations

import inspect
import math
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import classifier, images, labels_of
from suite_runs import EPS, NAMES, SEED, budget, run, threat_of
from torch import Tensor

from bench.attacks.registry import Unsupported, find_attack


class seeded:
    """The seeding rule of the adapters, written anew."""

    def __enter__(self) -> None:
        self.before = torch.get_rng_state(), np.random.get_state(), random.getstate()
        torch.manual_seed(SEED)
        np.random.seed(SEED)
        random.seed(SEED)

    def __exit__(self, *exc: object) -> None:
        torch.set_rng_state(self.before[0])
        np.random.set_state(self.before[1])
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


@pytest.mark.parametrize("name", [n for n in NAMES if ":" in n and not n.startswith("bench:")])  # of libraries
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
