"""Files of a data set as they were when it was listed: one that changes afterwards is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from defenses.utils.errors import UserError


class Stamp(NamedTuple):
    """Size, time of change and inode of a file, by which a change is found.

    Args:
        size: bytes.
        changed: time of the last change, in ns.
        inode: (device, inode) of a file with several names; None of one with a single name.
        status: time of the last change of its status, in ns, which nothing sets back.
    """

    size: int
    changed: int
    inode: tuple[int, int] | None
    status: int


def stamp_of(path: str | Path) -> Stamp:
    """Return the stamp of a file.

    Raises:
        UserError: it has vanished, or cannot be read.
    """
    try:
        return _stamp(os.stat(path))
    except OSError as error:
        raise _unreadable(path, error) from None


@contextmanager
def opened(path: str | Path, stamp: Stamp) -> Iterator[BufferedReader]:
    """Open a file that must not have changed since its stamp was taken.

    Raises:
        UserError: it has changed or vanished, or cannot be read.
    """
    with _open(path) as file:
        if _stamp(os.fstat(file.fileno()))[:2] != stamp[:2]:
            raise _changed(path)
        yield file


def _open(path: str | Path) -> BufferedReader:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise _changed(path) from None
    except OSError as error:
        raise _unreadable(path, error) from None


def _changed(path: str | Path) -> UserError:
    return UserError(f"{path} changed while the data set was read; leave its files as they are, and repeat the command")


def _unreadable(path: str | Path, error: OSError) -> UserError:
    return UserError(f"{path} cannot be read ({error.strerror}); mend or remove it, and repeat the command")


def _stamp(stat: os.stat_result) -> Stamp:
    return Stamp(
        stat.st_size, stat.st_mtime_ns, (stat.st_dev, stat.st_ino) if stat.st_nlink > 1 else None, stat.st_ctime_ns
    )
