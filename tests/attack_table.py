"""Run every attack in every norm and write the table of all attacks: `python tests/attack_table.py`.

It takes about three minutes, most of it for the compilation of Foolbox's Brendel-Bethge attacks.
"""

from __future__ import annotations

import random
import re
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import numpy as np
import torch
from models import AddNoise, classifier, images, labels_of
from suite_runs import ALL, SEED, budget, class_of, threat_of
from torch import Tensor

from bench.suites import Attack, Unsupported, find_attack, foolbox, library_version
from bench.suites.catalogue import NORMS, Entry, markdown, write
from bench.threat import Norm, ThreatModel, distances, in_box, target_labels
from bench.view import attack_view
from bench.viewspec import ViewSpec
from defenses.base import Defense, Purified
from defenses.errors import UserError

PAGE = Path(__file__).parents[1] / "leaderboards" / "attacks.md"
NEEDED: dict[str, Any] = {"steps": 12, "attacks": ["apgd-ce", "square"]}


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
        if name.startswith("foolbox:") and foolbox._facts(name.split(":")[1]).parameters.required:
            defense, x = classifier(), images(2)
            Measured(name, {}, defense, x, labels_of(defense, x)).run(threat_of("L2"))
    except (UserError, Unsupported) as error:
        reason = str(error)
    return tuple(re.findall(r'needs (?:a list )?"(\w+)"', reason))


@lru_cache
def measure(name: str) -> Entry:
    """Run an attack in every norm, untargeted, targeted and on varying answers."""
    wanted = needs(name)
    params = budget(name) | {key: NEEDED[key] for key in wanted}
    defense, x = classifier(channels=3), images(6, 3)
    clean = Measured(name, params, defense, x, labels_of(defense, x))
    status = {norm: clean.status(threat_of(norm)) for norm in NORMS}
    for norm in NORMS:
        if "only runs targeted" in status[norm] and clean.status(threat_of(norm, "next")) == "runs":
            status[norm] = "runs, targeted only"
    first = next((norm for norm in NORMS if status[norm].startswith("runs")), None)
    if first:
        threat = threat_of(first, "none" if status[first] == "runs" else "next")
        assert torch.equal(clean.run(threat), clean.run(threat)), "not the same bits twice"
    return Entry(
        name=name,
        alias_of="",
        kind="minimisation" if clean.attack.minimisation else "fixed eps",
        **status,
        targeted=_targeted(name, params, first),
        asks=("gradients" if clean.backwards else "logits" if clean.queries else "nothing") if first else "",
        stochastic=_stochastic(name, params, first, status),
        needs=", ".join(wanted),
        warnings="; ".join(find_attack(name, {key: NEEDED[key] for key in wanted}).warnings),
    )


def _targeted(name: str, params: dict[str, Any], norm: Norm | None) -> str:
    """On four classes, so that every class has an image to start from."""
    if norm is None:
        return "cannot: it runs in no norm"
    defense, x = classifier(4, channels=3), images(16, 3)
    return Measured(name, params, defense, x, labels_of(defense, x)).status(threat_of(norm, "next"))


def _stochastic(name: str, params: dict[str, Any], norm: Norm | None, status: dict[str, str]) -> str:
    if norm is None:
        return "cannot: it runs in no norm"
    bare, x = classifier(channels=3), images(6, 3)
    noisy = Measured(name, params, Purified(AddNoise(0.1), bare), x, labels_of(bare, x))
    return noisy.status(threat_of(norm, "none" if status[norm] == "runs" else "next"))


def entry(name: str) -> Entry:
    """The row of an attack; that of an alias is the row of its class."""
    original = class_of(name)
    if original == name:
        return measure(name)
    return Entry(**vars(measure(original)) | {"name": name, "alias_of": original})


def versions() -> str:
    """What the table depends on."""
    return ", ".join(f"{d} {library_version(d)}" for d in ("pyautoattack", "foolbox", "torchattacks"))


if __name__ == "__main__":
    from bench.suites.catalogue import FILE

    torch.set_num_threads(1)
    table = [entry(name) for name in ALL]
    write(table, FILE)
    PAGE.write_text(markdown(table, versions()), encoding="utf-8")
    print(f"{FILE}\n{PAGE}")
