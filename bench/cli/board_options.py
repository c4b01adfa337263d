"""Options of the commands that take a board, and what they do with it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.board.duration import duration
from bench.board.from_names import board_of_names
from bench.board.load import board_names, load_board
from bench.board.results_folder import default_folder, shard_folder, similar_folder
from bench.board.schema import check
from bench.cli import arguments as shared
from bench.cli.next_step import next_step
from bench.cli.ray_options import UNSET, ray_options
from bench.cli.terminal import width
from bench.execution.evaluations import evaluations
from bench.execution.options import Options
from bench.execution.workers.limits import all_workers
from bench.report.files import known_undamaged, table_for
from bench.spec.shard import Shard
from bench.store.manifest import check_board, earlier_name, plans, read_manifest
from bench.store.parts import CellRecord, read_lines, stored
from defenses.utils.errors import UserError
from defenses.utils.hints import note, warn

if TYPE_CHECKING:
    from bench.board.board import Board

_WORKERS = (
    'processes that cells run in, "auto" to fill the cores, 0 for none: nothing is stopped then (default: "auto" on '
    "boards that take long, else fewer)"
)
_UNASKED_GIB = 4.0  # of memory, of each worker that nobody asked for
_WORTH_A_WORKER = 1_000_000  # evaluations: with fewer, its start takes longer than it saves


def add_board(sub: argparse.ArgumentParser, *, preset: bool = False, folder: bool = False) -> None:
    """Add the board, the results folder and the roots.

    Args:
        sub: the parser.
        preset: add the options of a board without a file.
        folder: a results folder may stand for the board.
    """
    text = "a TOML file, or the name of a built-in board, as quickstart" + (", or a results folder" if folder else "")
    more = "; or none, with --defense, --dataset and --attack or --preset"
    sub.add_argument("board", help=text + more if preset else text, nargs="?" if preset else None)
    if preset:
        sub.add_argument("--preset", help="without a board: a protocol by name (purebench ls presets)")
        sub.add_argument("--dataset", help="without a board: name of the data set")
        sub.add_argument("--eps", help='without a board: radius, as "8/255" (default: that of the preset)')
        sub.add_argument("--norm", help="without a board: Linf, L2 or L1 (default: that of the preset, else Linf)")
        sub.add_argument("--indices", help="without a board: which images, as first-100")
        shared.add_parameters(sub, "without a board: parameters of the defense")
        shared.add_label(sub, several=True, before="without a board: ")
        shared.add_stochastic(sub, "without a board: ")
        text = "arithmetic of the attacks' search, as precision=bf16; the board gets a name that says it"
        sub.add_argument("--compute", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=text)
    shared.add_out(sub, "results folder (default: results/<board>)")
    shared.add_roots(sub)


def add_selection(sub: argparse.ArgumentParser) -> None:
    """Add the options that select a part of the board."""
    sub.add_argument(
        "--shard", type=_shard, metavar="I/N", help="only the I-th of N parts, as 3/16, for a machine each"
    )
    shared.add_labels(sub, "--defense", "only these; without a board: which, by name")
    shared.add_labels(sub, "--attack", "only these and the null attacks; without a board: which, by name")


def add_run_options(sub: argparse.ArgumentParser) -> None:
    """Add the options of running cells."""
    sub.add_argument("--workers", type=workers, default=UNSET, help=_WORKERS)
    shared.add_device(sub)
    sub.add_argument("--time-limit", type=_duration, metavar="TIME", help='for a cell: seconds, or "10min", "2h"')
    sub.add_argument(
        "--memory", type=_gib, metavar="GIB", help="for a worker process (default: its share of the free memory)"
    )
    sub.add_argument("--retry-errors", action="store_true", help="run cells again that ended in an error")
    sub.add_argument(
        "--resume-anyway", action="store_true", help="keep results of models that cannot be identified, and mark them"
    )
    sub.add_argument("--force", action="store_true", help="run models that return probabilities, too, and mark them")
    shared.add_quiet(sub, "no progress, no table")


def workers(text: str) -> int | None:
    """Parse a number of workers; None for "auto"."""
    if not (text == "auto" or text.isdecimal()):
        raise argparse.ArgumentTypeError(f'{text} is not "auto" or a whole number, at least 0')
    return None if text == "auto" else int(text)


def _shard(text: str) -> Shard:
    """Parse a shard, as "3/16"."""
    try:
        return Shard.parse(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _duration(text: str) -> float:
    """Parse a duration, in seconds."""
    try:
        return duration(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _gib(text: str) -> float:
    """Parse an amount of memory, in GiB."""
    return shared.number_between(text, 0, float("inf"), "is not a positive number of GiB")


def names_board(text: str) -> bool:
    """Return True if the text is a TOML file or the name of a built-in board."""
    return text.endswith(".toml") or text in board_names()


def selected_board(arguments: argparse.Namespace) -> Board:
    """Read the board of the command line, or make it of the names there.

    Raises:
        UserError: a board and names of one without, or neither; an unknown setting of --compute; or what `load_board`
            or `board_of_names` raises.
    """
    try:
        compute = check("compute", shared.key_values(getattr(arguments, "compute", ())))
    except UserError as error:
        lines = (str(line).replace(" in [compute]", "") for line in error.args)
        raise UserError(*lines).within("--compute") from None
    board = _named_board(arguments)
    board = load_board(arguments.board, **shared.roots_of(arguments)) if board is None else board
    return board.with_compute(compute)


def selected_rows(arguments: argparse.Namespace) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the labels of (defenses, attacks) to run; empty: all, as of a board made of names on the command line."""
    if arguments.board is None:
        return (), tuple(arguments.attack) if arguments.preset else ()
    return tuple(arguments.defense), tuple(arguments.attack)


def _named_board(arguments: argparse.Namespace) -> Board | None:
    """Return the board of the options; None where a board is named."""
    names = ("preset", "dataset", "eps", "norm", "indices", "set", "stochastic", "label")
    options: dict[str, Any] = {n: getattr(arguments, n, None) for n in names}
    preset, used = options.pop("preset"), [name for name, value in options.items() if value]
    if arguments.board is not None:
        if preset is not None:
            raise UserError(f'"{arguments.board}" and --preset are both given; a board names its preset in its file')
        if used:
            raise UserError(f"--{used[0]} is for a run without a board; in a board, write it into its file")
        return None
    attacks = getattr(arguments, "attack", ())
    if preset is None and not attacks and not used and not getattr(arguments, "defense", ()):
        raise UserError("name a board, as quickstart; or give --defense, --dataset and --attack or --preset")
    for name, example in (("defense", "adp"), ("dataset", "digits")):
        if not getattr(arguments, name):
            raise UserError(f"without a board, --{name} is needed; add it, as --{name} {example}")
    if preset is None and not attacks:
        raise UserError("without a board, attacks are needed; add --attack autoattack:standard, or --preset standard")
    options |= {
        "params": shared.key_values(options.pop("set")),
        "labels": options.pop("label") or (),
        **shared.roots_of(arguments),
    }
    return board_of_names(preset=preset, attacks=() if preset else attacks, defenses=arguments.defense, **options)


def shard_of(arguments: argparse.Namespace) -> str | None:
    """Return --shard as text; None without it."""
    shard: Shard | None = getattr(arguments, "shard", None)
    return None if shard is None else str(shard)


def results_folder(arguments: argparse.Namespace, board: Board) -> Path:
    """Return --out, or the default folder of a board; tell of results that it has under an earlier name."""
    shard: Shard | None = getattr(arguments, "shard", None)
    if arguments.out is None and shard is not None:
        return shard_folder(board, shard)
    folder: Path = arguments.out or default_folder(board)
    keys = board.keys()
    if keys and (other := earlier_name(folder, board.name)) and plans(folder, keys):
        text = f'"{board.name}" has the cells of "{other}", so the results in {folder} are its own'
        note(text)
    if arguments.out is None and (similar := similar_folder(board, folder)):
        nearest, count = similar
        name = read_manifest(nearest).get("board", nearest.name)
        out = "" if name == nearest.name else f" and add --out {nearest}"
        remedy = f'to go on with it, write name = "{name}" into the board{out}'
        note(f"{nearest} has {count} of the {len(keys or ())} cells; {remedy}")
    return folder


def worker_count(arguments: argparse.Namespace, board: Board) -> int:
    """Return --workers as a number of processes.

    Without it, one for each million evaluations, as far as cores and memory go.
    """
    count: int | None = arguments.workers
    if count is not None and count != UNSET:
        return count
    if count is None:
        return all_workers(board.threads, arguments.device)
    most = all_workers(board.threads, arguments.device, _UNASKED_GIB)
    return min(most, 1 + sum(map(evaluations, board.cells())) // _WORTH_A_WORKER)


def run_and_show(
    board: Board,
    folder: Path,
    arguments: argparse.Namespace,
    defenses: tuple[str, ...] = (),
    attacks: tuple[str, ...] = (),
) -> int:
    """Run a board, print its table and the errors on record, and return the exit code."""
    from bench.execution.run_board import run_board
    from bench.execution.workers.messages import WorkerFailed

    options = Options(
        data_root=arguments.data_root,
        weights_root=arguments.weights_root,
        workers=worker_count(arguments, board),
        device=arguments.device,
        defenses=defenses,
        attacks=attacks,
        shard=shard_of(arguments),
        retry_errors=arguments.retry_errors,
        resume_anyway=arguments.resume_anyway,
        quiet=arguments.quiet,
        time_limit=arguments.time_limit,
        memory=arguments.memory,
        ray=ray_options(arguments),
        probabilities=frozenset(d.title for d in board.defenses) if arguments.force else frozenset(),
    )
    try:
        errors = run_board(board, folder, options)
    except WorkerFailed as error:
        print(f"purebench: {error}", file=sys.stderr)
        return 1
    table = table_for(folder, width())
    if not arguments.quiet:
        print(table.rstrip("\n"))
        print(f"\nrecords, draws and tables: {folder}", file=sys.stderr)
        print(next_step(board.name, folder, getattr(arguments, "shard", None)), file=sys.stderr)
    return report_errors(errors)


def report_errors(errors: list[str]) -> int:
    """Print the errors on record, and return the exit code: 2 if there are any."""
    for line in errors:
        print(f"purebench: error on record: {line}", file=sys.stderr)
    return 2 if errors else 0


def read_stored(
    folder: Path, board: str, keys: Collection[str] | None = None
) -> tuple[dict[str, CellRecord], set[str]]:
    """Read the stored cells of a board.

    Args:
        folder: of results; it need not exist.
        board: name of the board whose results it holds.
        keys: see `bench.store.manifest.check_board`.

    Returns:
        The lines of stored cells by key, without damaged parts, each of which gets a warning on standard error; and the
        keys of the cells in damaged parts, as far as they can be read.

    Raises:
        UserError: the folder is a file, or holds results of another board or of a newer version.
    """
    existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not existing.is_dir():
        raise UserError(f"{existing} is no folder; choose another one with --out")
    check_board(folder, board, keys)
    damaged: dict[Path, str] = {}
    parts = stored(folder / "parts", None if known_undamaged(folder) else damaged.__setitem__)
    for part, problem in damaged.items():
        warn(f"{part}: {problem}; run the board again, which redoes its cells")
    lines = {key: line for key, (line, _) in parts.items()}
    return lines, {key for part in damaged for key in _keys(part)} - lines.keys()


def _keys(part: Path) -> set[str]:
    """Return the cells of a damaged part; none when their lines cannot be read."""
    try:
        return {line["key"] for line in read_lines(part)}
    except (FileNotFoundError, ValueError):
        return set()
