"""`purebench ls`: what there is."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.commands import Declare


def add(declare: Declare) -> None:
    """Declare the command."""
    sub = declare("ls", _ls, "List what there is.")
    sub.add_argument("what", nargs="?", choices=("defenses", "attacks", "datasets", "boards"), default="defenses")


def _ls(arguments: argparse.Namespace) -> int:
    if arguments.what == "defenses":
        from defenses.registry import card, list_models

        for name in list_models():
            print(f"{name:<12} {card(name).summary}")
    elif arguments.what == "attacks":
        from bench.suites import attack_names

        print("\n".join(attack_names()))
    elif arguments.what == "datasets":
        from bench.data import NAMES

        print("\n".join([*NAMES, "path/to/own.npz"]))
    else:
        import leaderboards

        print("\n".join(sorted(p.stem for p in Path(leaderboards.__file__).parent.glob("*.toml"))))
    return 0
