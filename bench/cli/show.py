"""`purebench show`: describe a defense, attack, data set, index list, preset or board."""

from __future__ import annotations

import argparse
import json

from bench.board.indices import FORMS
from bench.board.load import board_names
from bench.cli import describe, terminal
from bench.cli.arguments import add_roots, roots_of
from bench.cli.describe_board import board
from bench.cli.description_text import as_text
from defenses.utils.errors import unknown
from defenses.utils.names import is_plugin


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    sub.add_argument("name", help="as purebench ls lists it; or a board file, or file.py:Name of your own")
    sub.add_argument("--json", action="store_true", help="as a list of JSON objects")
    add_roots(sub)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    found = _descriptions(arguments)
    if arguments.json:
        print(json.dumps(found, indent=1, default=str))
    else:
        columns = terminal.width()
        print("\n\n".join(as_text(description, columns) for description in found))
    return 0


def _descriptions(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Return the descriptions of all that a name stands for.

    Raises:
        UserError: unknown name, with the nearest ones.
    """
    name, roots = arguments.name, roots_of(arguments)
    found = [d for d in (describer(name) for describer in describe.BY_NAME) if d]
    found += [d for d in (describe.dataset(name, arguments.data_root), board(name, roots)) if d]
    names = [*describe.all_names(), *board_names()]
    if not found and is_plugin(name) and not any(known.startswith(f"{name.partition(':')[0]}:") for known in names):
        from bench.cli.describe_own import own

        found = [d for d in (own(name, arguments.data_root),) if d]
    if not found:
        raise unknown("name", name, [*names, *FORMS])
    return found
