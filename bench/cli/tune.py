"""`purebench tune`: choose parameters of deployment on validation images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bench.cli import arguments as shared
from bench.cli.board_options import workers
from bench.execution.options import Options
from bench.execution.workers.limits import all_workers


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    sub.add_argument("defense", help="a registered defense with weights, as adp")
    sub.add_argument("--dataset", default="digits", help="default: digits")
    text = "values to try, as --grid sigma=1/10,1/4 steps=5,10 (default: the grid of the defense's card)"
    sub.add_argument("--grid", nargs="+", action="extend", default=[], metavar="KEY=VALUES", help=text)
    shared.add_parameters(sub, "parameters of all candidates")
    sub.add_argument("--eps", help='Linf radius of the transfer, as "8/255" (default: that of the card)')
    sub.add_argument("--indices", default="first-200", help="validation images, as first-500 (default: first-200)")
    sub.add_argument("--draws", type=shared.positive, default=3, help="held-out draws, odd (default: 3)")
    sub.add_argument("--block", type=shared.positive, default=100, help="images of a cell (default: 100)")
    sub.add_argument("--seed", type=int, default=0, help="of transfer and draws (default: 0)")
    sub.add_argument("--workers", type=workers, default=1, help='worker processes, "auto" to fill the cores')
    shared.add_device(sub)
    shared.add_out(sub, "results folder of the candidates (default: results/tune-<defense>-<dataset>)")
    shared.add_roots(sub)
    shared.add_quiet(sub, "no progress, no table")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from bench.tracks.tuning.grid import grid_of
    from bench.tracks.tuning.run import tune
    from bench.tracks.tuning.tables import table

    a = arguments
    grid = grid_of(a.defense, a.dataset, values=shared.key_lists(a.grid), eps=a.eps, fixed=shared.key_values(a.set))
    folder = a.out or Path("results") / f"tune-{a.defense}-{a.dataset}"
    options = Options(
        data_root=a.data_root,
        weights_root=a.weights_root,
        workers=all_workers(1, a.device) if a.workers is None else a.workers,
        device=a.device,
        quiet=a.quiet,
    )
    setting: dict[str, Any] = {"indices": a.indices, "draws": a.draws, "seed": a.seed, "block": a.block}
    content = tune(grid, folder, options, **setting)
    if not a.quiet:
        print(table(content), end="")
    return 0
