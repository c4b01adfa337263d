"""The command `purebench`. Heavy imports wait until a command needs them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defenses.errors import UserError, unknown

if TYPE_CHECKING:
    from bench.board import Board


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the return value is the exit code: 0 done, 1 a fault of purebench, 2 bad input."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.command(arguments))
    except UserError as error:
        print(f"purebench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\npurebench: interrupted; finished cells are kept, repeat the command to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="purebench", description="Tells whether a defense against adversarial examples really works."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: object, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=function)
        return sub

    for name, function, text in (
        ("run", _run, "Run a board: attack, judge, write records and tables. Finished cells are skipped."),
        ("plan", _plan, "Show what a board would run."),
        ("status", _status, "Show what of a board is finished."),
    ):
        sub = command(name, function, text)
        sub.add_argument("board", help="a TOML file, or the name of a board that comes along, as quickstart")
        sub.add_argument("--out", type=Path, help="results folder (default: results/<board>)")
        sub.add_argument("--weights-root", type=Path, help="look here first for <dataset>/<name>.safetensors")
        sub.add_argument("--data-root", type=Path, help="where data sets lie (default: $PUREBENCH_DATA)")
        if name != "status":
            sub.add_argument("--defense", nargs="+", action="extend", default=[], help="only these")
            sub.add_argument("--attack", nargs="+", action="extend", default=[], help="only these and the null attacks")
        if name == "run":
            sub.add_argument("--workers", type=_positive, default=1, help="processes (default: 1)")
            sub.add_argument("--device", default="cpu", help="where models run, as cuda:0 (default: cpu)")
            sub.add_argument("--retry-errors", action="store_true", help="run cells again that ended in an error")
            sub.add_argument("--quiet", action="store_true", help="no progress, no table")
    sub = command("ls", _ls, "List what there is.")
    sub.add_argument("what", nargs="?", choices=("defenses", "attacks", "datasets", "boards"), default="defenses")
    sub = command("table", _table, "Print the table of a results folder.")
    sub.add_argument("results", type=Path)
    sub.add_argument("--format", choices=("text", "markdown", "csv", "latex", "html"), default="text")
    _train_arguments(command("train", _train, "Train a defense by its recipe, resumably."))
    return parser


def _train_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("name", help="a defense with a recipe, see purebench ls")
    sub.add_argument("--dataset", default="digits", help="digits, mnist or cifar10 (default: digits)")
    sub.add_argument("--out", type=Path, help="weights folder; files go to <out>/<dataset> (default: the user's cache)")
    sub.add_argument("--data-root", type=Path)
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="change the recipe")
    sub.add_argument("--stability", action="store_true", help="only measure the stability of trained ebm-mcmc chains")


def _positive(text: str) -> int:
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number, at least 1")
    return value


def _board(arguments: argparse.Namespace) -> Board:
    from bench.board import load_board

    return load_board(arguments.board, weights_root=arguments.weights_root, data_root=arguments.data_root)


def _folder(arguments: argparse.Namespace, name: str) -> Path:
    given: Path | None = arguments.out
    return given or Path("results") / name


def _run(arguments: argparse.Namespace) -> int:
    from bench.run import Options, run_board
    from bench.workers import WorkerFailed
    from bench.write import current_table

    board = _board(arguments)
    folder = _folder(arguments, board.name)
    options = Options(
        data_root=arguments.data_root,
        weights_root=arguments.weights_root,
        workers=arguments.workers,
        device=arguments.device,
        defenses=tuple(arguments.defense),
        attacks=tuple(arguments.attack),
        retry_errors=arguments.retry_errors,
        quiet=arguments.quiet,
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


def _plan(arguments: argparse.Namespace) -> int:
    from bench.run import Options, select

    board = _board(arguments)
    cells = board.cells()
    chosen = select(cells, Options(defenses=tuple(arguments.defense), attacks=tuple(arguments.attack)))
    folder = _folder(arguments, board.name)
    stored = _stored(folder)
    pairs: dict[str, list[int]] = {}
    for cell in chosen:
        name = f"{cell.threat} | {cell.defense.label} | {cell.attack.label} | "
        name += cell.view_label
        done, total = pairs.setdefault(name, [0, 0])
        pairs[name] = [done + (cell.key in stored), total + 1]
    for name, (done, total) in pairs.items():
        print(f"{name} | {total} block{'s' if total > 1 else ''}{f', {done} finished' if done else ''}")
    images = sum(c.data.stop - c.data.start for c in chosen)
    print(f"{len(chosen)} cells of up to {board.block} images, {images} adversarial images; results in {folder}")
    return 0


def _stored(folder: Path) -> dict[str, str]:
    """Status by key of what a folder holds; damaged parts, which a run does again, left out."""
    from bench.parts import stored

    return {key: line["status"] for key, (line, _) in stored(folder / "parts").items()}


def _status(arguments: argparse.Namespace) -> int:
    board = _board(arguments)
    folder = _folder(arguments, board.name)
    stored, cells = _stored(folder), board.cells()
    counts: dict[str, dict[str, int]] = {}
    for cell in cells:
        row = counts.setdefault(cell.defense.label, {})
        state = stored.get(cell.key, "missing")
        row[state] = row.get(state, 0) + 1
    for label, row in counts.items():
        print(f"{label}: " + ", ".join(f"{n} {state}" for state, n in sorted(row.items())))
    done = sum(c.key in stored for c in cells)
    print(f"{done} of {len(cells)} cells finished in {folder}")
    return 0


def _ls(arguments: argparse.Namespace) -> int:
    if arguments.what == "defenses":
        from defenses.registry import card, list_models

        for name in list_models():
            print(f"{name:<12} {card(name).summary}")
    elif arguments.what == "attacks":
        from bench.suites import attack_names

        print("\n".join(attack_names()))
    elif arguments.what == "datasets":
        from bench.data import NAMES

        print("\n".join([*NAMES, "path/to/own.npz"]))
    else:
        import leaderboards

        print("\n".join(sorted(p.stem for p in Path(leaderboards.__file__).parent.glob("*.toml"))))
    return 0


def _table(arguments: argparse.Namespace) -> int:
    from bench.write import current_table

    if not (arguments.results / "plan.jsonl").is_file():
        raise UserError(f"{arguments.results} is no results folder (it has no plan.jsonl); run a board first")
    print(current_table(arguments.results, arguments.format), end="")
    return 0


def _train(arguments: argparse.Namespace) -> int:
    from defenses.registry import card, list_models

    trainable = [n for n in list_models() if card(n).train]
    if arguments.name not in trainable:
        raise unknown("recipe", arguments.name, trainable)
    from defenses.training import train
    from defenses.weights_io import cache_dir

    if arguments.stability:
        from defenses.training.stability import write_stability

        if arguments.name != "ebm-mcmc":
            raise UserError(f"--stability is about the chains of ebm-mcmc; {arguments.name} has none")
        print(write_stability(arguments.dataset, root=arguments.out, data_root=arguments.data_root))
        return 0
    path = train(
        arguments.name,
        arguments.dataset,
        out=(arguments.out or cache_dir()) / arguments.dataset,
        data_root=arguments.data_root,
        seed=arguments.seed,
        overrides=_overrides(arguments.set),
    )
    print(path)
    return 0


def _overrides(pairs: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE pairs; a value is read as TOML where it is, and as text elsewhere."""
    import tomllib

    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f'"{pair}" is not KEY=VALUE')
        try:
            values[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            values[key] = value
    return values


if __name__ == "__main__":
    sys.exit(main())
