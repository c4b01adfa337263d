"""Files that are written whole or not at all, and disks that cannot be written as one clear line."""

from __future__ import annotations

import errno
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from defenses.utils.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
_FAILING = (errno.EIO, errno.EFBIG, errno.ENODEV, errno.ENXIO, errno.ESTALE)
_ELSEWHERE = "choose another folder with --out"


class NotWritable(UserError):
    """A folder that this user may not write to."""


@contextmanager
def disk_errors(folder: Path, remedy: str, elsewhere: str = _ELSEWHERE) -> Iterator[None]:
    """Full and failing disks and missing permissions as one clear line; other errors pass.

    Args:
        folder: what is written to.
        remedy: what becomes of the work, the end of the line: "finished cells are kept".
        elsewhere: how another folder is chosen.

    Raises:
        NotWritable: no permission, or no folder.
        UserError: the disk is full or fails.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise UserError(f"no space left for {folder}: free some and repeat; {remedy}") from error
        if error.errno in _CLOSED:
            raise NotWritable(f"cannot write to {folder} ({error.strerror}): {elsewhere}") from error
        if error.errno in _FAILING:
            raise UserError(f"cannot write to {folder} ({error.strerror}): {remedy}") from error
        raise


@contextmanager
def no_empty_folder(folder: Path) -> Iterator[None]:
    """Take away a folder, and those above it, that were made meanwhile and are empty at the end: work was refused.

    Args:
        folder: it may be there already, and stays then.
    """
    missing = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
    try:
        yield
    finally:
        for path in missing:
            with suppress(OSError):  # it holds something, or was never made
                path.rmdir()


def make_folder(folder: Path) -> None:
    """Make a folder and try to write to it, before work is done for it.

    Args:
        folder: the folder; those above it are made too.

    Raises:
        NotWritable: no permission, or no folder.
        UserError: it cannot be written to for another reason.
    """
    try:
        with disk_errors(folder, "repeat the command"):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"0")
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror or error}): {_ELSEWHERE}") from error


def write_whole(path: Path, data: str | bytes, remedy: str) -> None:
    """Write a file so that at any moment it is the old one or the new one, whole, also after a crash.

    Args:
        path: the file; its folder is there.
        data: what it holds; text is written as UTF-8.
        remedy: see `disk_errors`.

    Raises:
        NotWritable: no permission, or no folder.
        UserError: it cannot be written for another reason.
    """
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    raw = data.encode("utf-8") if isinstance(data, str) else data
    try:
        with disk_errors(path.parent, remedy):
            try:
                with open(temporary, "wb") as file:
                    file.write(raw)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror or error}): {_ELSEWHERE}") from error
