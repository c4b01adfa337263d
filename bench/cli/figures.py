"""`purebench figures`: draw results as pictures, for papers and pages."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.cli.arguments import add_out, add_quiet, add_results, add_roots, roots_of


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_results(sub, several=True)
    add_out(sub, "folder of the pictures (default: figures)")
    sub.add_argument("--format", choices=("svg", "pdf", "png"), default="svg", help="kind of files (default: svg)")
    sub.add_argument(
        "--only", nargs="+", default=[], metavar="NAME",
        help="ranks, clean-robust, cost, matrix, claims; of each defense: attacks, draws; of audits: audit, checks, "
        "radius, convergence; corruptions; certified; of images, if they are named: adversarial-grid, trajectory, "
        "which loads the model (default: all that the results have)",
    )  # fmt: skip
    sub.add_argument("--defense", help="label of the defense of attacks, draws and images (default: all)")
    sub.add_argument("--width", help="width, as 84mm, 8.4cm or 3.3in (default: that of the picture)")
    sub.add_argument("--code", type=Path, help="folder of your own defenses and parts (default: the current folder)")
    add_roots(sub)
    add_quiet(sub, "no line on what was written")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from bench.figures.pictures import pictures, width_of
    from bench.store.folder import disk_errors, write_atomic
    from defenses.utils.text import clean, counted

    out, width = arguments.out or Path("figures"), width_of(arguments.width)
    roots = roots_of(arguments) | {"code": arguments.code}
    found = list(pictures(*arguments.results, only=arguments.only, defense=arguments.defense, **roots))
    drawn = {f"{picture.slug}.{arguments.format}": picture.bytes(arguments.format, width) for picture in found}
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        for name, content in drawn.items():
            write_atomic(out / name, content)
    if not arguments.quiet:
        print(f"{counted(len(found), 'picture')} in {clean(str(out))}")
    return 0
