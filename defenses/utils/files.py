"""Atomic writes, and errors of disks as one clear line."""

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
    """A folder without permission to write."""


@contextmanager
def disk_errors(folder: Path, remedy: str, elsewhere: str = _ELSEWHERE) -> Iterator[None]:
    """Turn errors of full or failing disks and of missing permissions into one clear line; others pass.

    Args:
        folder: the folder that is written to.
        remedy: the end of the line, as "finished cells are kept".
        elsewhere: the advice to choose another folder.

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
    """Remove, at the end, folders that were made meanwhile and are empty.

    Args:
        folder: the folder; it and those above it stay if they exist before.
    """
    missing = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
    try:
        yield
    finally:
        for path in missing:
            with suppress(OSError):  # not empty, or never made
                path.rmdir()


def make_folder(folder: Path, elsewhere: str = _ELSEWHERE) -> None:
    """Make a folder, with those above it, and write to it once, before any work.

    Args:
        folder: the folder.
        elsewhere: the advice to choose another folder.

    Raises:
        NotWritable: no permission, or no folder.
        UserError: it cannot be written to for another reason.
    """
    try:
        with disk_errors(folder, "repeat the command", elsewhere):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"0")
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror or error}): {elsewhere}") from error


def write_whole(path: Path, data: str | bytes, remedy: str) -> None:
    """Write a file atomically: at any moment, also after a crash, it is the old or the new one, whole.

    Args:
        path: the file, in an existing folder.
        data: the content; text is written as UTF-8.
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


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
