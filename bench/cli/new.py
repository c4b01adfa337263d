"""`purebench new`: write a file to start from."""

from __future__ import annotations

import argparse
from pathlib import Path

import bench
from defenses.utils.errors import UserError
from defenses.utils.files import make_folder, write_whole

_TEMPLATE = Path(bench.__file__).parent / "examples" / "board.toml"


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    kinds = sub.add_subparsers(required=True, metavar="WHAT")
    text = "Write a commented board that runs as it stands; an existing file is left alone."
    board = kinds.add_parser("board", help=text, description=text)
    board.add_argument("file", nargs="?", type=Path, default=Path("board.toml"), help="default: board.toml")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    file: Path = arguments.file
    if file.suffix != ".toml":
        raise UserError(f"a board is a .toml file; write purebench new board {file.with_suffix('.toml')}")
    if file.exists():
        raise UserError(f"{file} exists, and is left as it is; give another name, or remove it")
    make_folder(file.parent, f"name a file in another folder, as ~/{file.name}")
    write_whole(file, _TEMPLATE.read_bytes(), "nothing is written")
    print(f"{file} is written; purebench plan {file} says what it would run")
    return 0
