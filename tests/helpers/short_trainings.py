"""Recipes cut to a few steps, a training by them, and an objective that diverges."""

from pathlib import Path

import torch
from torch import nn

from defenses.training.objective import Material, Objective
from defenses.training.train import train

QUICK = {"unit": "steps", "validate_every": 4, "phases": [{"until": 9, "optimizer": "adam", "lr": 1e-3}]}
SHORT = {
    "undefended": QUICK,
    "pgd-at": {
        "unit": "steps",
        "validate_every": 4,
        "phases": [{"until": 6, "optimizer": "adam", "lr": 1e-3}],
        "objective.iterations": 2,
        "objective.validation_iterations": 2,
        "objective.validation_images": 50,
    },
    "smoothing": QUICK,
    "adp": {
        "validate_every": 4,
        "phases": [
            {"until": 4, "optimizer": "adam", "lr": 1e-3, "lr_end": 1e-4},
            {"until": 9, "optimizer": "sgd", "lr": 1e-4, "momentum": 0.9},
        ],
    },
    "score-sde": {"validate_every": 4, "phases": [{"until": 9, "optimizer": "adam", "lr": 0.0, "lr_end": 1e-3}]},
    "vat": {"validate_every": 4, "phases": [{"until": 9, "optimizer": "adam", "lr": 1e-3}]},
    "few-labels": {"validate_every": 4, "phases": [{"until": 9, "optimizer": "adam", "lr": 1e-3}]},
    "ebm-mcmc": {
        "validate_every": 4,
        "phases": [{"until": 9, "optimizer": "adam", "lr": 1e-3}],
        "objective.langevin_steps": 3,
    },
    "defense-gan": {**QUICK, "objective.critic_steps": 2},
    "defense-vae": QUICK,
    "magnet": QUICK,
    "jem": {**QUICK, "objective.steps": 3},
    "igebm": {**QUICK, "objective.steps": 3},
}
for _name in ("fgsm-at", "free-at", "ensemble-at", "grad-align", "gan-at"):  # no steps of an inner attack to shorten
    SHORT[_name] = {k: v for k, v in SHORT["pgd-at"].items() if k != "objective.iterations"}
for _name in ("fast-at", "trades", "mart", "awp"):
    SHORT[_name] = {**SHORT["pgd-at"], "objective.ema": 0.9}
SHORT["free-at"] |= {"objective.replays": 4}


def run(name: str, out: Path, **more: object) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    given = {"overrides": SHORT[name], "device": "cpu", "progress": False, **more}
    return load_file(train(name, "digits", out=out, **given))  # type: ignore[arg-type]


class Exploding(Objective):
    """A loss that is finite for some steps."""

    def loss(self, index, step):
        return self.network(self.data.x[index]).sum() * (float("nan") if step == 5 else 1e-3)


def material() -> Material:
    x = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(20, dtype=torch.int64)
    return Material(x, y, x, y, trained=lambda name: nn.Identity())
