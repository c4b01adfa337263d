"""Subjects of an audit at a small budget."""

from dataclasses import replace

import torch

from bench.audit.budgets import BUDGETS
from bench.audit.subject import Subject
from bench.spec.threat import ThreatModel
from defenses import load_model
from defenses.data.dataset import load_dataset

SMALL = replace(BUDGETS["quick"], images=32, steps=15, queries=60, spsa=(4, 8), planted=12, inner=64, draws=8)


def subject(defense, folder, *, norm="Linf", eps="1/5", size=SMALL, name="it", other=True):
    data = load_dataset("digits")
    n = size.images
    return Subject(
        defense=defense,
        label=name,
        fingerprint={"name": name},
        x=data.x[:n],
        y=data.y[:n],
        indices=torch.arange(n),
        num_classes=10,
        dataset="digits",
        threat=ThreatModel(norm, eps),
        budget=size,
        seed=0,
        folder=folder / "audit" / "raw",
        other=load_model("undefended") if other else None,
    )
