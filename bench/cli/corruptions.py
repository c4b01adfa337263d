"""`purebench corruptions`: accuracy of defenses on corrupted images."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.arguments import Declare, key_values, positive
from bench.cli.board_options import names_board
from defenses.utils.errors import UserError

if TYPE_CHECKING:
    from bench.board.defense_entry import Candidate

# Where no board says them.
_DEFAULTS: dict[str, Any] = {"dataset": "digits", "split": "test", "indices": "all", "seed": 0}


def add(declare: Declare) -> None:
    """Declare the command."""
    text = "Accuracy of defenses by common corruption and severity, resumably; nothing is attacked."
    sub = declare("corruptions", _corruptions, text)
    what = "names of defenses, as adp or file.py:Class; or one board, whose defenses are meant"
    sub.add_argument("defense", nargs="+", help=what)
    what = "parameters of the defense, where it is one by name; it gets them into its label"
    sub.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=what)
    what = "a clean data set, corrupted here, or cifar10-c or cifar100-c, whose files are read (default: digits)"
    sub.add_argument("--dataset", help=what)
    sub.add_argument("--corruptions", nargs="+", default=[], help="only these (default: all)")
    sub.add_argument("--severities", nargs="+", default=["1", "2", "3", "4", "5"], help="only these")
    sub.add_argument("--split", help="default: the board's; else test")
    sub.add_argument("--indices", help="which images, as first-100 (default: the board's; else all)")
    sub.add_argument("--draws", type=positive, default=5, help="of a stochastic defense (default: 5)")
    sub.add_argument("--seed", type=int, help="of the draws (default: the board's; else 0)")
    sub.add_argument("--out", type=Path, help="results folder (default: results/corruptions-<dataset>)")
    sub.add_argument("--weights-root", type=Path, help="look here first for <dataset>/<name>.safetensors")
    sub.add_argument("--data-root", type=Path, help="where data sets lie (default: $PUREBENCH_DATA)")
    sub.add_argument("--quiet", action="store_true", help="no progress")


def _corruptions(arguments: argparse.Namespace) -> int:
    from bench.tracks.corruptions.run import CorruptionJob, file_label
    from bench.tracks.corruptions.tables import write

    said, candidates = _asked(arguments)
    work = CorruptionJob(
        defenses=candidates,
        corruptions=tuple(arguments.corruptions),
        severities=tuple(arguments.severities),
        draws=arguments.draws,
        data_root=arguments.data_root,
        **said,
    )
    folder = arguments.out or Path("results") / file_label(f"corruptions-{work.dataset}")
    work.run(folder, (lambda _: None) if arguments.quiet else lambda line: print(line, file=sys.stderr))
    print(write(folder, f"Corruptions of {work.dataset} ({work.split})"), end="")
    return 0


def _asked(arguments: argparse.Namespace) -> tuple[dict[str, Any], list[Candidate]]:
    """(data set, split, index list and seed; which defenses)."""
    from bench.board.defense_entry import candidate, describe
    from bench.board.load import load_board

    given = {key: value for key in _DEFAULTS if (value := getattr(arguments, key)) is not None}
    names, params = arguments.defense, key_values(arguments.set)
    roots = {"weights_root": arguments.weights_root, "data_root": arguments.data_root}
    if params and (len(names) > 1 or names_board(names[0])):
        raise UserError("--set is for one defense; run the others apart, into the same folder, or write a board")
    if len(names) == 1 and names_board(names[0]):
        board = load_board(names[0], **roots)
        if given.get("dataset", board.dataset) not in (board.dataset, f"{board.dataset}-c"):
            raise UserError(f"the board is of {board.dataset}, not of {given['dataset']}; leave --dataset out")
        said = {key: getattr(board, key) for key in _DEFAULTS} | given
        return said, [candidate(d, board.dataset, roots) for d in board.defenses]
    said = _DEFAULTS | given
    entries = [{"name": name, "label": ", ".join((name, *arguments.set)), "params": params} for name in names]
    return said, [candidate(describe(e, said["dataset"], **roots), said["dataset"], roots) for e in entries]
