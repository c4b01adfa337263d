"""`purebench corruptions`: accuracy of defenses on corrupted images."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from bench.commands import Declare, positive


def add(declare: Declare) -> None:
    """Declare the command."""
    text = "Accuracy of defenses by common corruption and severity, resumably; nothing is attacked."
    sub = declare("corruptions", _corruptions, text)
    sub.add_argument("defense", nargs="+", help="names, with their default parameters")
    what = "a clean data set, corrupted here, or cifar10-c or cifar100-c, whose files are read (default: digits)"
    sub.add_argument("--dataset", default="digits", help=what)
    sub.add_argument("--corruptions", nargs="+", default=[], help="only these (default: all)")
    sub.add_argument("--severities", nargs="+", default=["1", "2", "3", "4", "5"], help="only these")
    sub.add_argument("--split", default="test", help="default: test")
    sub.add_argument("--indices", default="all", help="which images, as first-100 (default: all)")
    sub.add_argument("--draws", type=positive, default=5, help="of a stochastic defense (default: 5)")
    sub.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    sub.add_argument("--out", type=Path, help="results folder (default: results/corruptions-<dataset>)")
    sub.add_argument("--weights-root", type=Path, help="look here first for <dataset>/<name>.safetensors")
    sub.add_argument("--data-root", type=Path, help="where data sets lie (default: $PUREBENCH_DATA)")
    sub.add_argument("--quiet", action="store_true", help="no progress")


def _corruptions(arguments: argparse.Namespace) -> int:
    from bench.corruption_run import Work, write

    def label(name: str) -> str:
        return re.sub(r"[^\w.]+", "-", name).strip("-.")

    defenses: dict[str, tuple[str, dict[str, Any]]] = {label(name): (name, {}) for name in arguments.defense}
    named = ("dataset", "split", "indices", "draws", "seed", "data_root", "weights_root")
    work = Work(
        defenses=defenses,
        corruptions=tuple(arguments.corruptions),
        severities=tuple(arguments.severities),
        **{key: getattr(arguments, key) for key in named},
    )
    folder = arguments.out or Path("results") / label(f"corruptions-{arguments.dataset}")
    work.run(folder, (lambda _: None) if arguments.quiet else lambda line: print(line, file=sys.stderr))
    print(write(folder, f"Corruptions of {arguments.dataset} ({arguments.split})"), end="")
    return 0
