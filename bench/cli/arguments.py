"""Options, argument types and checks that several commands of `purebench` share."""

from __future__ import annotations

import argparse
import contextlib
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

from defenses.data.sources.base import split_name
from defenses.utils.errors import UserError
from defenses.utils.json_values import Json

NOT_MEASURABLE = 3  # exit code of a certificate or an audit that shows neither exact gradients nor a fault


def positive(text: str) -> int:
    """Parse a whole number, at least 1."""
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number, at least 1")
    return value


def at_least_0(text: str) -> int:
    """Parse a whole number, at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not a whole number, at least 0")
    return int(text)


def number_between(text: str, low: float, high: float, range_text: str) -> float:
    """Parse a number in the open interval (low, high).

    Args:
        text: the argument.
        low: lower end.
        high: upper end.
        range_text: the rest of the message, as "is not a positive number".
    """
    try:
        value = float(text)
    except ValueError:
        value = low
    if not low < value < high:
        raise argparse.ArgumentTypeError(f"{text} {range_text}")
    return value


def add_roots(sub: argparse.ArgumentParser) -> None:
    """Add --weights-root and --data-root."""
    text = "look here first for <dataset>/<name>.safetensors: a folder, or hf:owner/repository"
    sub.add_argument("--weights-root", type=Path, help=text)
    add_data_root(sub)


def add_data_root(sub: argparse.ArgumentParser) -> None:
    """Add --data-root."""
    sub.add_argument("--data-root", type=Path, help="folder of data sets (default: $PUREBENCH_DATA)")


def add_split(sub: argparse.ArgumentParser, text: str, default: str | None = "test") -> None:
    """Add --split with its help."""
    sub.add_argument("--split", type=split_name, default=default, help=text)


def add_out(sub: argparse.ArgumentParser, text: str) -> None:
    """Add --out with its help."""
    sub.add_argument("--out", type=Path, help=text)


def add_device(
    sub: argparse.ArgumentParser,
    text: str = "where models run, as cuda:0 (default: cpu)",
    *,
    default: str | None = "cpu",
) -> None:
    """Add --device."""
    sub.add_argument("--device", default=default, help=text)


def add_quiet(sub: argparse.ArgumentParser, text: str = "no progress") -> None:
    """Add --quiet."""
    sub.add_argument("--quiet", action="store_true", help=text)


def add_parameters(sub: argparse.ArgumentParser, text: str) -> None:
    """Add --set with its help; a repeated option adds to the earlier ones."""
    sub.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=text)


def add_labels(sub: argparse.ArgumentParser, name: str, text: str) -> None:
    """Add an option of one label or more; a repeated option adds to the earlier ones."""
    sub.add_argument(name, nargs="+", action="extend", default=[], help=text)


def add_label(sub: argparse.ArgumentParser, *, several: bool = False, before: str = "", name: str = "--label") -> None:
    """Add the option of the defenses' labels.

    Args:
        sub: the parser.
        several: the command takes several defenses.
        before: first words of the help.
        name: of the option.
    """
    text = f"{before}name of the defense in tables" + (", one for each" if several else "")
    if several:
        add_labels(sub, name, text)
    else:
        sub.add_argument(name, help=text)


def add_stochastic(sub: argparse.ArgumentParser, before: str = "") -> None:
    """Add --stochastic."""
    sub.add_argument("--stochastic", action="store_true", help=f"{before}a module of your own is random")


def add_results(sub: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add the results folder, which a board may stand for; several: any number of them."""
    text = "a results folder, or a board, whose folder below results/ is meant" + ("; or several" if several else "")
    sub.add_argument("results", type=_results_path, help=text, nargs="*" if several else None)


def _results_path(text: str) -> Path:
    """Return a folder; for a board without a folder of that name, its default results folder."""
    from bench.board.load import board_names, default_name, load_board
    from bench.board.results_folder import ROOT, default_folder

    if Path(text).is_dir() or not (text.endswith(".toml") or text in board_names()):
        return Path(text)
    try:
        folder = ROOT / default_name(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not (folder / "plan.jsonl").is_file() and any(ROOT.glob("*/plan.jsonl")):
        with contextlib.suppress(UserError):  # a board that cannot be read has no results under another name
            return default_folder(load_board(text))
    return folder


def add_format(sub: argparse.ArgumentParser, *more: str) -> None:
    """Add --format: text, Markdown, CSV, and further formats."""
    sub.add_argument("--format", choices=("text", "markdown", "csv", *more), default="text", help="default: text")


def roots_of(arguments: argparse.Namespace) -> Json:
    """Return the folders of weights and of data sets, as keyword arguments."""
    return {"weights_root": arguments.weights_root, "data_root": arguments.data_root}


def board_entry(arguments: argparse.Namespace, name: str) -> dict[str, object]:
    """Return the board entry of a defense: its name, and the parameters, label and randomness of the command line."""
    entry: dict[str, object] = {"name": name} | ({"params": key_values(arguments.set)} if arguments.set else {})
    if isinstance(label := getattr(arguments, "label", None), str):
        entry["label"] = label
    return entry | ({"stochastic": True} if arguments.stochastic else {})


def refuse_with(kind: str, arguments: argparse.Namespace, *names: str) -> None:
    """Refuse options that only a single defense or a board takes.

    Args:
        kind: what is named instead of a defense, as "board".
        arguments: of the command line.
        names: of the options.

    Raises:
        UserError: one of them is given.
    """
    for name in names:
        if getattr(arguments, name):
            wanted = "board" if name == "compute" else "single defense"
            raise UserError(f"--{name} is for a {wanted}; a {kind} says it itself, leave it out")


def check_seed(seed: int) -> int:
    """Return a seed, at least 0.

    Raises:
        UserError: it is negative.
    """
    if seed < 0:
        raise UserError(f"the seed {seed} is negative; take 0, say")
    return seed


def key_values(pairs: Sequence[str]) -> Json:
    """Parse KEY=VALUE pairs; a value is read as TOML, and as text where it is no TOML.

    Raises:
        UserError: a text is no pair.
    """
    values: dict[str, object] = {}
    for key, value in key_texts(pairs):
        try:
            values[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            values[key] = value
    return values


def key_lists(pairs: Sequence[str]) -> dict[str, list[object]]:
    """Parse KEY=VALUE,VALUE pairs; values are read as those of `key_values`.

    Raises:
        UserError: a text is no pair, or a key is there twice.
    """
    values: dict[str, list[object]] = {}
    for key, texts in key_texts(pairs):
        if key in values:
            raise UserError(f"{key} is given twice; write {key}=VALUE,VALUE once")
        values[key] = [key_values([f"{key}={text}"])[key] for text in texts.split(",") if text]
    return values


def key_texts(pairs: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (key, text of the value) of KEY=VALUE pairs.

    Raises:
        UserError: a text is no pair.
    """
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f'"{pair}" is not KEY=VALUE')
        yield key, value
