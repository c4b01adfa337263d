"""`purebench import`: published checkpoints of other code as weights."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.cli.arguments import Declare, key_values
from defenses.importers.formats import FORMATS


def add(declare: Declare) -> None:
    """Declare the command."""
    sub = declare("import", _import, "Write a published checkpoint as weights; names and shapes must agree.")
    sub.add_argument("format", help=", ".join(FORMATS))
    sub.add_argument("source", help="the checkpoint, whose code is not run; for diffusers a folder or an id of the hub")
    sub.add_argument("--dataset", default="cifar10", help="what it was trained on (default: cifar10)")
    sub.add_argument("--out", type=Path, help="weights folder; files go to <out>/<dataset> (default: the user's cache)")
    sub.add_argument("--name", help="what the weights are called (default: as the format says)")
    text = "options of the format, as --set average=true for ncsnv2, whose raw weights are taken otherwise"
    sub.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=text)


def _import(arguments: argparse.Namespace) -> int:
    from defenses.importers.registry import import_weights
    from defenses.utils.paths import cache_dir

    a = arguments
    out, options = (a.out or cache_dir()) / a.dataset, key_values(a.set)
    print(import_weights(a.format, a.source, a.dataset, out=out, name=a.name, options=options))
    return 0
