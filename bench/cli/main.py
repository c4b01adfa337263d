"""Run the command `purebench`: parse its arguments, and turn errors into one line and an exit code."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import re
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from bench import __version__
from bench.cli.commands import COMMANDS
from defenses.utils.errors import UserError, unknown
from defenses.utils.hints import on_standard_error
from defenses.utils.namespaces import is_private
from defenses.utils.text import clean


class _Parser(argparse.ArgumentParser):
    """A parser with errors of one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with 2 and one line, with the nearest names in place of an unknown one."""
        if choice := re.fullmatch(r"(.+): invalid choice: '(.*)' \(choose from (.*)\)", message):
            choices = [known.strip(" '") for known in choice[3].split(",")]
            message = f"{choice[1]}: {unknown('choice', choice[2], choices)}"
        self.exit(2, f"{self.prog}: {clean(message)}; see {self.prog} --help\n")


_UNREAD = 141  # as a shell tells SIGPIPE: nobody knows what a check found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 0 done; 1 a defense that fails its certificate or audit, a claim that differs or is refuted, a
        site or a run that differs, a submission that fails a check, or a fault of purebench; 2 bad input, errors on
        record, a broken environment, or verdicts that differ; 130 interrupted; 141 (as of SIGPIPE) nobody reads on.
    """
    if "_ARGCOMPLETE" in os.environ:  # set by the shell's completion alone
        import argcomplete

        argcomplete.autocomplete(build_parser())
    words = sys.argv[1:] if argv is None else argv
    command = next((word for word in words if not word.startswith("-")), "")
    if command and command not in COMMANDS and words[0] == command:
        print(f"purebench: {unknown('command', clean(command), COMMANDS)}", file=sys.stderr)
        return 2
    interrupts = _record_interrupts()
    try:
        arguments = build_parser(command).parse_args(argv)
        with on_standard_error():
            code = int(arguments.run(arguments))
        sys.stdout.flush()
        return code
    except UserError as error:
        if interrupts:
            return _interrupted()
        for line in error.args:
            print(f"purebench: {clean(str(line))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:
        _close_output()
        return _UNREAD
    except OSError as error:
        if interrupts:
            return _interrupted()
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
            raise
        print(f"purebench: cannot write to standard output ({error.strerror}); send it elsewhere", file=sys.stderr)
        _close_output()
        return 2
    except Exception:
        if not interrupts:
            raise
        return _interrupted()


def _record_interrupts() -> list[int]:
    """Return a list that gets an entry at every Ctrl-C: a library that is being imported may swallow the exception."""
    interrupts: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        interrupts.append(number)
        if not _is_importing():
            signal.default_int_handler(number, frame)
        retry = threading.Timer(0.05, _send_again, (number,))  # an exception within torch's import aborts the process
        retry.daemon = True
        retry.start()

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, or has a user's handler
        signal.signal(signal.SIGINT, handle)
    return interrupts


def _send_again(number: int) -> None:
    """Send a signal to the main thread."""
    if hasattr(signal, "pthread_kill"):  # interrupts a blocking call
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        signal.raise_signal(number)


def _is_importing() -> bool:
    """Return True if a library is being imported; code at a plug-in's top level does not count."""
    specs = [getattr(module, "__spec__", None) for name, module in [*sys.modules.items()] if not is_private(name)]
    return any(getattr(spec, "_initializing", False) for spec in specs)


def _interrupted() -> int:
    """Report the interruption and return its exit code; further Ctrl-C are ignored."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("\npurebench: interrupted; finished cells are kept, repeat the command to go on", file=sys.stderr)
    return 130


def _close_output() -> None:
    """Discard the rest of the output, so that Python reports no second error at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line.

    Args:
        command: the only command that gets its arguments, as their module is imported for it; None: all.
    """
    parser = _Parser(prog="purebench", description="Tells whether a defense against adversarial examples really works.")
    parser.add_argument("--version", action="version", version=f"purebench {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (module_name, text) in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text)
        if command in (None, name):
            module = importlib.import_module(f"bench.cli.{module_name}")
            sub.set_defaults(run=module.run)
            module.add(sub)
    return parser
