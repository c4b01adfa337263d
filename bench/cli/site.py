"""`purebench site`: write results as a site of static pages."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.cli.arguments import add_out, add_quiet, add_results, at_least_0


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_results(sub, several=True)
    add_out(sub, "folder of the site: empty, or of an earlier build (default: site)")
    sub.add_argument("--title", default="purebench", help="title of the site (default: purebench)")
    sub.add_argument(
        "--gallery", type=at_least_0, default=40, metavar="N", help="pictures of each attack, 0: none (default: 40)"
    )
    sub.add_argument(
        "--against", nargs="+", action="extend", default=[], type=Path, metavar="OLD",
        help="results folders of earlier runs of these boards: a page for each on what has changed",
    )  # fmt: skip
    text = (
        "further claims: a TOML file or a folder of them; RobustBench's model_info, a JSON file or a folder of them, "
        "reported accuracy beside the best known one (default: those that come with purebench alone)"
    )
    sub.add_argument("--claims", nargs="+", action="extend", default=[], type=Path, metavar="FILE", help=text)
    sub.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the folder differs")
    add_quiet(sub, "no line on what was written")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from bench.site.build import build_site, check_site
    from defenses.utils.text import clean, counted

    out = arguments.out or Path("site")
    options = {name: getattr(arguments, name) for name in ("title", "gallery", "against", "claims")}
    if arguments.check:
        lines = check_site(arguments.results, out, **options)
        for line in lines:
            print(f"{out}: {clean(line)}", file=sys.stderr)
        return int(bool(lines))
    site = build_site(arguments.results, out, **options)
    if not arguments.quiet:
        print(f"{counted(len(site.files), 'file')} in {clean(str(out))}; open {clean(str(site.index))}")
    return 0
