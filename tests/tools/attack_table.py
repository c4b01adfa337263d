"""Run every attack in every norm and write the table of all attacks: `python tests/tools/attack_table.py`.

It takes about three minutes, much of it for the compilation of Foolbox's Brendel-Bethge attacks.
"""

from __future__ import annotations

import random
import re
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1] / "helpers"), str(Path(__file__).parents[2])]

import numpy as np
import torch
from models import AddNoise, Linear, classifier, images, labels_of, seeded
from suite_runs import ALL, SEED, budget, class_of, threat_of
from torch import Tensor

from bench.attacks.catalogue import NORMS, CatalogueEntry, markdown, write
from bench.attacks.libraries import foolbox
from bench.attacks.registry import Attack, Unsupported, find_attack, library_version
from bench.evaluation.view import attack_view
from bench.spec.threat import Norm, ThreatModel, distances, in_box, target_labels
from bench.spec.view import ViewSpec
from defenses.core.defense import Classifier, Defense, Purified
from defenses.utils.errors import UserError

PAGE = Path(__file__).parents[2] / "leaderboards" / "attacks.md"
NEEDED: dict[str, Any] = {"steps": 12, "attacks": ["apgd-ce", "square"]}
# A parameter whose other value needs other classes.
OTHER: dict[str, dict[str, Any]] = {
    "torchattacks:APGD": {"loss": "dlr"},
    "torchattacks:AutoAttack": {"version": "rand"},
    **{f"bench:{local}": {"losses": ["dlr"]} for local in ("adaptive", "apgd", "pgd", "transfer", "spsa")},
}
BEHIND = ("bench:transfer",)  # they need something before the classifier


class Measured:
    """An attack on one defense and one batch, and what it has asked for."""

    def __init__(self, name: str, params: dict[str, Any], defense: Defense, x: Tensor, y: Tensor):
        self.attack: Attack = find_attack(name, params)
        self.params, self.defense, self.x, self.y = params, defense, x, y
        self.queries = self.backwards = 0

    def run(self, threat: ThreatModel) -> Tensor:
        classes = self.defense.num_classes or 10
        target = target_labels(threat, self.y, torch.arange(len(self.x)), classes, 0)
        with attack_view(self.defense, ViewSpec(), seed=3) as (view, meter):
            given = {"threat": threat, "target": target, "seed": SEED, "num_classes": classes}
            x_adv: Tensor = self.attack.run(view, self.x, self.y, **given, **self.params)
        self.queries, self.backwards = self.queries + view.queries, self.backwards + meter.backwards
        return x_adv

    def status(self, threat: ThreatModel) -> str:
        """Runs it and checks the contract of `Attack.run`."""
        before, generators = self.x.clone(), _generators()
        try:
            x_adv = self.run(threat)
        except Unsupported as reason:
            return f"cannot: {reason}"
        assert _generators() == generators
        assert torch.equal(self.x, before)
        assert (x_adv.shape, x_adv.dtype, x_adv.requires_grad) == (self.x.shape, torch.float32, False)
        assert x_adv.untyped_storage().data_ptr() != self.x.untyped_storage().data_ptr()
        assert in_box(x_adv).all()
        if not self.attack.minimisation:
            assert (distances(self.x, x_adv)[threat.norm] <= float(threat.eps) + threat.tolerance).all()
        return "runs"


def _generators() -> tuple[Any, ...]:
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()


def needs(name: str) -> tuple[str, ...]:
    """The parameters without which it does not run, as the attack itself says."""
    reason = ""
    try:
        find_attack(name)
        if name.startswith("foolbox:") and foolbox.SOURCE.facts(name.split(":")[1]).parameters.required:
            defense, x = classifier(), images(2)
            Measured(name, {}, defense, x, labels_of(defense, x)).run(threat_of("L2"))
    except (UserError, Unsupported) as error:
        reason = str(error)
    return tuple(re.findall(r'needs (?:a list )?"(\w+)"', reason))


@lru_cache
def measure(name: str) -> CatalogueEntry:
    """Run an attack in every norm, untargeted, targeted and on varying answers."""
    wanted = needs(name)
    params = budget(name) | {key: NEEDED[key] for key in wanted}
    clean = _measured(name, params, classifier(channels=3), images(6, 3))
    status = {norm: clean.status(threat_of(norm)) for norm in NORMS}
    for norm in NORMS:
        if "only runs targeted" in status[norm] and clean.status(threat_of(norm, "next")) == "runs":
            status[norm] = "runs, targeted only"
    first = next((norm for norm in NORMS if status[norm].startswith("runs")), None)
    if first:
        threat = threat_of(first, "none" if status[first] == "runs" else "next")
        assert torch.equal(clean.run(threat), clean.run(threat)), "not the same bits twice"
    return CatalogueEntry(
        name=name,
        alias_of="",
        kind="minimisation" if clean.attack.minimisation else "fixed eps",
        **status,
        targeted=_targeted(name, params, first),
        asks=("gradients" if clean.backwards else "logits" if clean.queries else "nothing") if first else "",
        stochastic=_stochastic(name, params, first, status),
        needs="; ".join([*(f"the parameter {key}" for key in wanted), *_demands(name, params, status)]),
        warnings="; ".join(find_attack(name, {key: NEEDED[key] for key in wanted}).warnings),
    )


def _measured(name: str, params: dict[str, Any], bare: Classifier, x: Tensor) -> Measured:
    """On a classifier, or on one behind a purifier that leaves images as they are."""
    defense = Purified(AddNoise(0.0), bare) if name in BEHIND else bare
    return Measured(name, params, defense, x, labels_of(bare, x))


def _targeted(name: str, params: dict[str, Any], norm: Norm | None) -> str:
    """On four classes, so that every class has an image to start from."""
    if norm is None:
        return "cannot: it runs in no norm"
    return _measured(name, params, classifier(4, channels=3), images(16, 3)).status(threat_of(norm, "next"))


def _stochastic(name: str, params: dict[str, Any], norm: Norm | None, status: dict[str, str]) -> str:
    if norm is None:
        return "cannot: it runs in no norm"
    bare, x = classifier(channels=3), images(6, 3)
    noisy = Measured(name, params, Purified(AddNoise(0.1), bare), x, labels_of(bare, x))
    return noisy.status(threat_of(norm, "none" if status[norm] == "runs" else "next"))


def _demands(name: str, params: dict[str, Any], status: dict[str, str]) -> list[str]:
    """What it asks of images and classes, as it says where they lack it; what it does not ask for, it does without."""
    runs = [norm for norm in NORMS if status[norm].startswith("runs")]
    threats = [threat_of(norm, "next" if "targeted" in status[norm] else "none") for norm in runs]
    if not threats:
        return []
    told = [_demand(name, params, classifier(channels=3), images(6, 3), threats[0], bare=True)]
    told += [_demand(name, params, classifier(), images(6), threats[0])]
    told += [_demand(name, params, *_tall(), threat) for threat in threats]
    told.append(_classes(name, params, threats[0]))
    if name in OTHER:
        key, value = next(iter(OTHER[name].items()))
        written = ", ".join(value) if isinstance(value, list) else value
        told.append(f"{_classes(name, params | OTHER[name], threats[0])} with {key} = {written}")
    return [text for text in dict.fromkeys(told) if text]


def _demand(
    name: str, params: dict[str, Any], defense: Classifier, x: Tensor, threat: ThreatModel, *, bare: bool = False
) -> str:
    """What it says it needs; "" if it runs."""
    y = labels_of(defense, x)
    measured = Measured(name, params, defense, x, y) if bare else _measured(name, params, defense, x)
    status = measured.status(threat)
    found = re.search(r"needs (?:images of )?(.*?), (?:these|the data set|and this)", status)
    assert found or status == "runs", status
    return found[1] if found else ""


def _classes(name: str, params: dict[str, Any], threat: ThreatModel) -> str:
    """The least number of classes on which it runs whole, from 3 on."""
    parts = ""
    for classes in (2, 3, 4):
        notes = " ".join(find_attack(name, params).notes(threat, classes, params))
        left_out = re.search(r"classes: (.*) left out", notes)
        parts = parts or (f" (with fewer, {left_out[1]} left out)" if left_out else "")
        lacks = _demand(name, params, classifier(classes, channels=3), images(6, 3), threat)
        if not lacks and not left_out:
            return f"≥ {classes} classes{parts}" if classes > 2 else ""
    raise AssertionError(f"{name} does not run on 4 classes")


def _tall() -> tuple[Classifier, Tensor]:
    """A linear model of images of 12x8 pixels, and some of them."""
    weight, x = seeded(10, 288) * 0.3, (seeded(6, 3, 12, 8, seed=1) * 0.4 + 0.5).clamp(0, 1)
    return Classifier(Linear(weight, -weight.sum(1) / 2), num_classes=10, input_shape=(3, 12, 8)), x


def entry(name: str) -> CatalogueEntry:
    """The row of an attack; that of an alias is the row of its class."""
    original = class_of(name)
    if original == name:
        return measure(name)
    return CatalogueEntry(**vars(measure(original)) | {"name": name, "alias_of": original})


def versions() -> str:
    """What the table depends on."""
    return ", ".join(f"{d} {library_version(d)}" for d in ("pyautoattack", "foolbox", "torchattacks"))


if __name__ == "__main__":
    from bench.attacks.catalogue import FILE

    torch.set_num_threads(1)
    table = [entry(name) for name in ALL]
    write(table, FILE)
    PAGE.write_text(markdown(table, versions()), encoding="utf-8")
    print(f"{FILE}\n{PAGE}")
