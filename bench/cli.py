"""The command `purebench`. Heavy imports wait until a command needs them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from bench.commands import Command, boards, ls, table, train
from defenses.errors import UserError

_COMMANDS = (boards, ls, table, train)


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

    def declare(name: str, function: Command, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=function)
        return sub

    for module in _COMMANDS:
        module.add(declare)
    return parser


if __name__ == "__main__":
    sys.exit(main())
