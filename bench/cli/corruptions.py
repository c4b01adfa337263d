"""`purebench corruptions`: measure the accuracy of defenses on corrupted images."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.board.defense_entry import candidate, describe
from bench.board.labels import with_labels
from bench.board.load import load_board
from bench.cli import arguments as shared
from bench.cli.board_options import names_board
from bench.cli.terminal import fitted
from defenses.utils.errors import UserError
from defenses.utils.names import portable

if TYPE_CHECKING:
    from bench.board.defense_entry import Candidate

_DEFAULTS: dict[str, Any] = {"dataset": "digits", "split": "test", "indices": "all", "seed": 0}  # without a board


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    text = "names of defenses, as adp or file.py:Class; or one board, for its defenses"
    sub.add_argument("defense", nargs="+", help=text)
    shared.add_parameters(sub, "parameters of a single defense by name; they become part of its label")
    shared.add_label(sub, several=True)
    shared.add_stochastic(sub)
    text = "a clean data set, corrupted here, or cifar10-c or cifar100-c, whose files are read (default: digits)"
    sub.add_argument("--dataset", help=text)
    sub.add_argument("--corruptions", nargs="+", default=[], help="only these (default: all)")
    sub.add_argument("--severities", nargs="+", default=["1", "2", "3", "4", "5"], help="only these")
    shared.add_split(sub, "default: the board's; else test", default=None)
    sub.add_argument("--indices", help="which images, as first-100 (default: the board's; else all)")
    sub.add_argument("--draws", type=shared.positive, default=5, help="of a stochastic defense (default: 5)")
    sub.add_argument("--seed", type=int, help="of the draws (default: the board's; else 0)")
    shared.add_out(sub, "results folder (default: results/corruptions-<dataset>)")
    shared.add_roots(sub)
    shared.add_quiet(sub)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from bench.tracks.corruptions.run import CorruptionJob, file_label
    from bench.tracks.corruptions.tables import write

    setting, candidates = _defenses(arguments)
    job = CorruptionJob(
        defenses=candidates,
        corruptions=tuple(arguments.corruptions),
        severities=tuple(arguments.severities),
        draws=arguments.draws,
        data_root=arguments.data_root,
        **setting,
    )
    folder = arguments.out or Path("results") / file_label(f"corruptions-{job.dataset}")
    job.run(folder, (lambda _: None) if arguments.quiet else lambda line: print(line, file=sys.stderr))
    print(fitted(write(folder, f"Corruptions of {job.dataset} ({job.split})")), end="")
    return 0


def _defenses(arguments: argparse.Namespace) -> tuple[dict[str, Any], list[Candidate]]:
    """Return (data set, split, index list and seed by name; the defenses)."""
    options = {key: value for key in _DEFAULTS if (value := getattr(arguments, key)) is not None}
    names, params, roots = arguments.defense, shared.key_values(arguments.set), shared.roots_of(arguments)
    if arguments.stochastic and names_board(names[0]):
        raise UserError("--stochastic is for defenses by name; in a board, write stochastic = true into its file")
    if params and (len(names) > 1 or names_board(names[0])):
        raise UserError("--set is for one defense; run the others apart, into the same folder, or write a board")
    if arguments.label and names_board(names[0]):
        raise UserError("--label is for defenses by name; in a board, write label into its file")
    if len(names) == 1 and names_board(names[0]):
        board = load_board(names[0], **roots)
        if options.get("dataset", board.dataset) not in (board.dataset, f"{board.dataset}-c"):
            raise UserError(f"the board is of {board.dataset}, not of {options['dataset']}; leave --dataset out")
        setting = {key: getattr(board, key) for key in _DEFAULTS} | options
        return setting, [candidate(d, board.dataset, roots) for d in board.defenses]
    setting = _DEFAULTS | options
    dataset = setting["dataset"]
    random = {"stochastic": True} if arguments.stochastic else {}
    entries = with_labels([{"name": n, "params": params, **random} for n in names], arguments.label)
    if not arguments.label:
        entries = [{**entry, "label": ", ".join((entry["label"], *map(_portable, arguments.set)))} for entry in entries]
    return setting, [candidate(describe(e, dataset, **roots), dataset, roots) for e in entries]


def _portable(pair: str) -> str:
    """Return KEY=VALUE without the folder of a user's file."""
    key, _, value = pair.partition("=")
    return f"{key}={portable(value)}"
