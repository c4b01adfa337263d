"""The command `purebench`. Heavy imports wait until a command needs them."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from bench import __version__
from bench.cli import (
    audit,
    certify,
    compare,
    corruptions,
    detect,
    doctor,
    import_weights,
    judge,
    ls,
    model_info,
    plan,
    poison,
    run,
    smooth,
    table,
    train,
    verify,
)
from bench.cli.arguments import Command
from defenses.utils.errors import UserError
from defenses.utils.text import clean

_COMMANDS = (
    *(run, plan, ls, table, compare, detect, certify, audit, smooth, corruptions, poison),
    *(train, import_weights, doctor, model_info, judge, verify),
)


class _Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Bad arguments: exit with 2."""
        self.exit(2, f"{self.prog}: {clean(message)}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 0 done; 1 a defense that fails its certificate or audit, a claim that differs, or a fault of
        purebench; 2 bad input, errors on record, a broken environment, or verdicts that differ; 130 interrupted.
    """
    parser = _arguments()
    if "_ARGCOMPLETE" in os.environ:  # set by the shell's completion alone
        import argcomplete

        argcomplete.autocomplete(parser)
    arguments = parser.parse_args(argv)
    pressed = _heed_interruptions()
    try:
        code = int(arguments.command(arguments))
        sys.stdout.flush()
        return code
    except UserError as error:
        if pressed:
            return _interrupted()
        print(f"purebench: {clean(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:
        _close_output()
        return 0
    except OSError as error:
        if pressed:
            return _interrupted()
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
            raise
        print(f"purebench: cannot write to standard output ({error.strerror}); send it elsewhere", file=sys.stderr)
        _close_output()
        return 2
    except Exception:
        if not pressed:
            raise
        return _interrupted()


def _heed_interruptions() -> list[int]:
    """What gets an entry when Ctrl-C is pressed: a library that is being imported may swallow it, break or abort."""
    pressed: list[int] = []

    def heed(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        if not _importing(frame):
            signal.default_int_handler(number, frame)
        again = threading.Timer(0.05, _press_again, (number,))  # torch's C++ aborts at an exception: wait
        again.daemon = True
        again.start()

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, or somebody's own
        signal.signal(signal.SIGINT, heed)
    return pressed


def _press_again(number: int) -> None:
    if hasattr(signal, "pthread_kill"):  # wakes the main thread from what it waits for
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        signal.raise_signal(number)


def _importing(frame: FrameType | None) -> bool:
    """Whether an import statement is being carried out; a plug-in's own code at its top level does not count."""
    while frame is not None:
        if frame.f_code.co_name == "_find_and_load" and "importlib" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


def _interrupted() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # once is enough
    print("\npurebench: interrupted; finished cells are kept, repeat the command to go on", file=sys.stderr)
    return 130


def _close_output() -> None:
    """Whatever is left to print goes nowhere, without another error at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _arguments() -> argparse.ArgumentParser:
    parser = _Parser(prog="purebench", description="Tells whether a defense against adversarial examples really works.")
    parser.add_argument("--version", action="version", version=f"purebench {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def declare(name: str, function: Command, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=function)
        return sub

    for module in _COMMANDS:
        module.add(declare)
    return parser
