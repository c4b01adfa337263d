"""`purebench run` and `status`: what is done with a board."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.arguments import key_values
from defenses.utils.errors import UserError

if TYPE_CHECKING:
    from bench.board.board import Board

_WORKERS = 'processes that cells run in, "auto" to fill the cores, 0 for none: nothing is stopped then (default: 1)'


def board_arguments(sub: argparse.ArgumentParser, *, preset: bool = False) -> None:
    """Which board, or where one may be given by a preset, which; and where things lie."""
    text = "a TOML file, or the name of a board that comes along, as quickstart"
    sub.add_argument("board", help=f"{text}; or use --preset" if preset else text, nargs="?" if preset else None)
    if preset:
        sub.add_argument("--preset", help="a protocol by name (purebench ls presets), with --defense and --dataset")
        sub.add_argument("--dataset", help="with --preset: name of the data set")
        sub.add_argument("--eps", help='with --preset: radius, as "8/255" (default: that of the preset)')
        sub.add_argument("--norm", help="with --preset: Linf, L2 or L1 (default: that of the preset)")
        sub.add_argument("--indices", help="with --preset: which images, as first-100")
        sub.add_argument(
            "--set", nargs="+", action="extend", metavar="KEY=VALUE", help="with --preset: defense parameters"
        )
        sub.add_argument("--stochastic", action="store_true", help="with --preset: a module of your own is random")
    sub.add_argument("--out", type=Path, help="results folder (default: results/<board>)")
    sub.add_argument("--weights-root", type=Path, help="look here first for <dataset>/<name>.safetensors")
    sub.add_argument("--data-root", type=Path, help="where data sets lie (default: $PUREBENCH_DATA)")


def selection_arguments(sub: argparse.ArgumentParser) -> None:
    """Which part of the board."""
    sub.add_argument("--defense", nargs="+", action="extend", default=[], help="only these; with --preset: which")
    sub.add_argument("--attack", nargs="+", action="extend", default=[], help="only these and the null attacks")


def run_arguments(sub: argparse.ArgumentParser) -> None:
    """How cells are run."""
    sub.add_argument("--workers", type=workers, default=1, help=_WORKERS)
    sub.add_argument("--device", default="cpu", help="where models run, as cuda:0 (default: cpu)")
    sub.add_argument("--time-limit", type=_duration, metavar="TIME", help='for a cell: seconds, or "10min", "2h"')
    sub.add_argument(
        "--memory", type=_size, metavar="GIB", help="for a worker process (default: its share of what is there)"
    )
    sub.add_argument("--retry-errors", action="store_true", help="run cells again that ended in an error")
    sub.add_argument("--force", action="store_true", help="run models that return probabilities, too, and mark them")
    sub.add_argument("--quiet", action="store_true", help="no progress, no table")


def workers(text: str) -> int | None:
    """A number of workers; None for "auto"."""
    if not (text == "auto" or text.isdecimal()):
        raise argparse.ArgumentTypeError(f'{text} is not "auto" or a whole number, at least 0')
    return None if text == "auto" else int(text)


def _duration(text: str) -> float:
    from bench.board.schema import duration

    try:
        return duration(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _size(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number of GiB")
    return value


def names_board(text: str) -> bool:
    """Whether a text means a board: a TOML file, or one that comes along."""
    from bench.board.load import board_names

    return text.endswith(".toml") or text in board_names()


def board_of(arguments: argparse.Namespace) -> Board:
    """The board that was asked for.

    Raises:
        UserError: a board and a preset, or neither; or what `load_board` or `board_of_preset` raises.
    """
    from bench.board.load import load_board

    if (found := _of_preset(arguments)) is not None:
        return found
    return load_board(arguments.board, weights_root=arguments.weights_root, data_root=arguments.data_root)


def _of_preset(arguments: argparse.Namespace) -> Board | None:
    """The board of --preset; None where a board is given."""
    from defenses.utils.errors import UserError

    names = ("preset", "dataset", "eps", "norm", "indices", "set", "stochastic")
    said: dict[str, Any] = {n: getattr(arguments, n, None) for n in names}
    preset, given = said.pop("preset"), [name for name, value in said.items() if value]
    if preset is None:
        if arguments.board is None:
            raise UserError("name a board, as quickstart, or a --preset with --defense and --dataset")
        if given:
            raise UserError(f"--{given[0]} belongs to --preset; in a board, write it into its file")
        return None
    if arguments.board is not None:
        raise UserError(f'"{arguments.board}" and --preset are both given; a board names its preset in its file')
    for name in ("dataset", "defense"):
        if not getattr(arguments, name):
            raise UserError(f"--preset needs --{name}; add it, as --{name} {'digits' if name == 'dataset' else 'adp'}")
    from bench.board.load import board_of_preset

    roots = {"weights_root": arguments.weights_root, "data_root": arguments.data_root}
    params = key_values(said.pop("set") or ())
    return board_of_preset(preset, defenses=arguments.defense, params=params, **said, **roots)


def folder_of(arguments: argparse.Namespace, name: str) -> Path:
    """Its results folder."""
    given: Path | None = arguments.out
    return given or Path("results") / name


def workers_of(arguments: argparse.Namespace, board: Board) -> int:
    """How many processes were asked for."""
    from bench.execution.workers.limits import all_workers

    given: int | None = arguments.workers
    return all_workers(board.threads, arguments.device) if given is None else given


def run_and_show(
    board: Board,
    folder: Path,
    arguments: argparse.Namespace,
    defenses: tuple[str, ...] = (),
    attacks: tuple[str, ...] = (),
) -> int:
    """Run a board and print its table and the errors on record; the exit code."""
    from bench.execution.options import Options
    from bench.execution.run_board import run_board
    from bench.execution.workers.pool import WorkerFailed
    from bench.report.files import current_table

    options = Options(
        data_root=arguments.data_root,
        weights_root=arguments.weights_root,
        workers=workers_of(arguments, board),
        device=arguments.device,
        defenses=defenses,
        attacks=attacks,
        retry_errors=arguments.retry_errors,
        quiet=arguments.quiet,
        time_limit=arguments.time_limit,
        memory=arguments.memory,
        probabilities=frozenset(d.title for d in board.defenses) if arguments.force else frozenset(),
    )
    try:
        errors = run_board(board, folder, options)
    except WorkerFailed as error:
        print(f"purebench: {error}", file=sys.stderr)
        return 1
    table = current_table(folder)
    if not arguments.quiet:
        print(table.rstrip("\n"))
        print(f"\nrecords, draws and tables: {folder}", file=sys.stderr)
    for line in errors:
        print(f"purebench: error on record: {line}", file=sys.stderr)
    return 2 if errors else 0


def stored_of(folder: Path, board: Board) -> tuple[dict[str, dict[str, Any]], set[str]]:
    """What a results folder holds of a board.

    Args:
        folder: need not be there.
        board: whose results it is to hold.

    Returns:
        The lines of stored cells by key, without damaged parts, of which a warning tells on standard error; and the
        keys of the cells in those, as far as they can be read.

    Raises:
        UserError: the folder is a file, or holds what this board or version cannot go on with.
    """
    from bench.report.files import seen_whole
    from bench.store.manifest import check_board
    from bench.store.parts import stored

    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not there.is_dir():
        raise UserError(f"{there} is no folder; choose another one with --out")
    check_board(folder, board.name)
    damaged: dict[Path, str] = {}
    lines = stored(folder / "parts", None if seen_whole(folder) else damaged.__setitem__)
    for part, problem in damaged.items():
        print(f"warning: {part}: {problem}; run the board again, which redoes its cells", file=sys.stderr)
    kept = {key: line for key, (line, _) in lines.items()}
    return kept, {key for part in damaged for key in _keys(part)} - kept.keys()


def _keys(part: Path) -> set[str]:
    """The cells of a damaged part; none when their lines cannot be read."""
    from bench.store.parts import read_lines

    try:
        return {line["key"] for line in read_lines(part)}
    except (FileNotFoundError, ValueError):
        return set()
