"""A model of RobustBench's zoo without a download: a fresh network under its name."""

from __future__ import annotations

from pathlib import Path

import torch

SMALL = "Hendrycks2020AugMix_WRN"  # 2.2 million parameters
CORRUPT = {"dataset": "cifar10", "threat_model": "corruptions"}
BOARD = """
dataset = "{data}"
[threat]
norm = "Linf"
eps = "8/255"
[[defense]]
name = "robustbench:{model}"
params = {{ threat_model = "corruptions", trained_on = "cifar10" }}
[[attack]]
name = "foolbox:LinfFastGradientAttack"
"""


def make_checkpoint(root: Path) -> Path:
    """Put `SMALL` into a folder of weights; its file."""
    from robustbench.model_zoo.cifar10 import common_corruptions

    torch.manual_seed(0)
    path = root / "robustbench" / "cifar10" / "corruptions" / f"{SMALL}.pt"
    path.parent.mkdir(parents=True)
    torch.save({"state_dict": common_corruptions[SMALL]["model"]().state_dict()}, path)
    return path


def empty_cache(tmp_path: Path, monkeypatch) -> Path:  # type: ignore[no-untyped-def]
    """No weights at hand, and an empty cache; where it would have `SMALL`."""
    monkeypatch.delenv("PUREBENCH_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "purebench" / "weights" / "robustbench" / "cifar10" / "corruptions"
