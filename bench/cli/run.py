"""`purebench run`: run a board."""

from __future__ import annotations

import argparse
import sys
import threading
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from bench.board.defense_entry import is_loaded
from bench.board.load import find_board
from bench.cli.board_options import (
    add_board,
    add_run_options,
    add_selection,
    results_folder,
    run_and_show,
    selected_board,
    selected_rows,
)
from bench.cli.ray_options import add_ray
from defenses.utils.errors import UserError
from defenses.utils.names import portable
from defenses.utils.text import counted

_PATIENCE = 0.5  # seconds


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_board(sub, preset=True)
    add_selection(sub)
    add_run_options(sub)
    add_ray(sub)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    takes_long = not arguments.quiet and "torch" not in sys.modules
    with _announced(_loading(arguments) if takes_long else ""):
        board = selected_board(arguments)
    return run_and_show(board, results_folder(arguments, board), arguments, *selected_rows(arguments))


@contextmanager
def _announced(text: str) -> Iterator[None]:
    """Print a line if what follows takes longer than `_PATIENCE`."""
    timer = threading.Timer(_PATIENCE, print, (text,), {"file": sys.stderr, "flush": True})
    timer.daemon = True
    if text:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _loading(arguments: argparse.Namespace) -> str:
    """Return what is run, where cells can be counted only when a defense is loaded, which takes seconds; else ""."""
    try:
        raw = _raw(arguments)
        loaded = [entry for entry in raw["defense"] if is_loaded(entry)]
        if not loaded:
            return ""
        label = loaded[0].get("label") or portable(loaded[0]["name"])
        attacks = counted(len(raw["attack"]), "attack") if raw.get("attack") else f"preset {raw['preset']}"
        images = f"{raw.get('indices') or 'all'} of {portable(raw['dataset'])}"
    except (UserError, OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return ""  # `selected_board` says what is wrong
    more = f" and {len(loaded) - 1} more" if len(loaded) > 1 else ""
    return f"{counted(len(raw['defense']), 'defense')} x {attacks}, {images}; loading {label}{more} to count the cells"


def _raw(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Return the board as its file or the command line writes it."""
    if arguments.board is not None:
        return tomllib.loads(find_board(arguments.board).read_text(encoding="utf-8"))
    named = {key: getattr(arguments, key) for key in ("attack", "preset", "dataset", "indices")}
    return {**named, "defense": [{"name": name} for name in arguments.defense]}
