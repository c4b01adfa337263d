"""`purebench challenge`: judge images against a row of a results folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.cli.arguments import add_device, add_results, add_roots
from bench.report.files import check_results
from defenses.utils.errors import UserError
from defenses.utils.text import clean

_OPTIONS = ("norm", "eps", "name", "device", "code", "weights_root", "data_root")  # of `challenge_row`


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_results(sub)
    sub.add_argument("--defense", required=True, help="label of the row")
    text = ".npz with x_adv, in the order of the board or with index (or .npy, .pt, .safetensors)"
    sub.add_argument("--images", required=True, type=Path, metavar="FILE", help=text)
    sub.add_argument("--norm", help="of the threat, if the row has several")
    sub.add_argument("--eps", help="of the threat, if the row has several")
    sub.add_argument("--keep", action="store_true", help="add the images to the results: the worst case counts them")
    sub.add_argument("--name", help="of the images in tables, after given: (default: that of the file)")
    sub.add_argument("--author", help="of the images; with --keep")
    sub.add_argument("--link", help="to where they are published; with --keep")
    sub.add_argument("--code", type=Path, help="folder of your own defenses and parts (default: the current folder)")
    add_device(sub)
    add_roots(sub)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    check_results(arguments.results)
    if arguments.keep and not (arguments.author and arguments.link):
        raise UserError("images are kept with their origin; add --author NAME --link ADDRESS")
    if not arguments.keep and (arguments.author or arguments.link):
        raise UserError("--author and --link are of images that are kept; add --keep, or leave them out")
    if arguments.code is not None and not arguments.code.is_dir():
        raise UserError(f"there is no folder {arguments.code}; give --code the folder of your own defenses")
    from bench.audit.challenge import keep
    from bench.audit.challenge_row import challenge_row

    options = {name: getattr(arguments, name) for name in _OPTIONS}
    challenged = challenge_row(arguments.results, arguments.defense, arguments.images, **options)
    print(challenged)
    if arguments.keep:
        kept = keep(challenged, arguments.author, arguments.link)
        print(
            f"{clean(challenged.label)} {'is kept' if kept else 'was kept already'} in {clean(str(arguments.results))}"
        )
    return 0
