"""`purebench import`: write published checkpoints of other code as weights."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.cli.arguments import add_data_root, add_out, add_parameters, key_values
from defenses.importers.formats import ABOUT
from defenses.utils.errors import UserError
from defenses.utils.paths import cache_dir


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    sub.add_argument("format", help="; ".join(f"{name}: {about}" for name, about in ABOUT.items()).replace("`", ""))
    sub.add_argument("source", help="the checkpoint, whose code is not run; for diffusers a folder or an id of the hub")
    sub.add_argument("--dataset", default="cifar10", help="data set of its training (default: cifar10)")
    add_out(sub, "weights folder; files go to <out>/<dataset> (default: the user's cache)")
    sub.add_argument("--name", help="name of the weights (default: the format's; robustbench has none)")
    sub.add_argument("--half", action="store_true", help="store the weights as float16")
    add_parameters(sub, "options of the format, as --set average=true for ncsnv2, whose raw weights are the default")
    text = "write nothing; measure whether the network behaves as its paper says, and exit with 1 if it does not"
    sub.add_argument("--check", action="store_true", help=text)
    sub.add_argument("--images", type=int, help="with --check: test images (default: 500)")
    add_data_root(sub)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from defenses.importers.registry import import_weights

    a = arguments
    if a.check:
        return _check(a)
    if a.images is not None or a.data_root is not None:
        raise UserError("--images and --data-root are of --check; add --check, or leave them out")
    out, options = (a.out or cache_dir()) / a.dataset, key_values(a.set)
    print(import_weights(a.format, a.source, a.dataset, out=out, name=a.name, half=a.half, options=options))
    return 0


def _check(a: argparse.Namespace) -> int:
    """Print a line for each measurement; return 1 if one is not as it must be."""
    from bench.audit.imported_weights import check_weights, claimed_accuracies
    from defenses.importers.registry import read_checkpoint

    images = 500 if a.images is None else a.images
    if images < 2:
        raise UserError(f"--images is {images}; it must be at least 2")
    if a.out is not None or a.name is not None or a.half:
        raise UserError("--check writes nothing; leave out --out, --name and --half, or --check")
    checkpoint, network = read_checkpoint(a.format, a.source, a.dataset, options=key_values(a.set))
    claimed = claimed_accuracies(Path(a.source), a.dataset)
    findings = check_weights(checkpoint, network, a.dataset, images=images, data_root=a.data_root, claimed=claimed)
    for finding in findings:
        print(f"{finding.status}  {finding.check}: {finding.evidence}")
    return int(any(finding.status == "fail" for finding in findings))
