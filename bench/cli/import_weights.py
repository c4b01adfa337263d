"""`purebench import`: write published checkpoints of other code as weights."""

from __future__ import annotations

import argparse

from bench.cli.arguments import add_out, add_parameters, key_values
from defenses.importers.formats import ABOUT
from defenses.utils.paths import cache_dir


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    sub.add_argument("format", help="; ".join(f"{name}: {about}" for name, about in ABOUT.items()).replace("`", ""))
    sub.add_argument("source", help="the checkpoint, whose code is not run; for diffusers a folder or an id of the hub")
    sub.add_argument("--dataset", default="cifar10", help="data set of its training (default: cifar10)")
    add_out(sub, "weights folder; files go to <out>/<dataset> (default: the user's cache)")
    sub.add_argument("--name", help="name of the weights (default: as the format says)")
    sub.add_argument("--half", action="store_true", help="store the weights as float16")
    add_parameters(sub, "options of the format, as --set average=true for ncsnv2, whose raw weights are the default")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from defenses.importers.registry import import_weights

    a = arguments
    out, options = (a.out or cache_dir()) / a.dataset, key_values(a.set)
    print(import_weights(a.format, a.source, a.dataset, out=out, name=a.name, half=a.half, options=options))
    return 0
