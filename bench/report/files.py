"""Tables on disk, brought up to date only when what they are made of has changed."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from bench.evaluation.certificates.stored import FILE as CERTIFICATES
from bench.store.audits import FOLDER as AUDITS
from bench.store.audits import NAME
from bench.store.folder import NotWritable, Store, write_atomic
from bench.store.parts import FILES, SUMS, attempts, damage, part_folders, sha256
from defenses.utils.errors import UserError

FORMATS = {
    "text": "tables.txt",
    "markdown": "tables.md",
    "csv": "tables.csv",
    "latex": "tables.tex",
    "html": "tables.html",
}
_STAMP = ".tables-stamp"  # of the contents; a copy of the folder may bring it along
_SEEN = ".tables-seen"  # sizes and times of the parts' files when they were last found whole, on this machine
_VERSION = "10"  # raised when the same records give other tables


def current_table(folder: Path, form: str = "text") -> str:
    """A table of a results folder; all table files are written again if they are out of date.

    Where they are not, none is written; where they are and the folder is read-only, the tables are only returned. Of a
    damaged part that no table is made of, a warning tells on standard error.

    Args:
        folder: with a plan and parts.
        form: a key of FORMATS.

    Raises:
        UserError: a damaged file, or no space left.
    """
    problems: list[str] = []
    if _stamped(folder):
        files = attempts(lambda: _times(folder))
        if files == _read(folder / _SEEN):
            return (folder / FORMATS[form]).read_text(encoding="utf-8")
        if not (problems := attempts(lambda: _damaged(folder))):
            with suppress(UserError):  # the next look takes longer, and that is all
                write_atomic(folder / _SEEN, files)
            return (folder / FORMATS[form]).read_text(encoding="utf-8")
    table = _made(folder, form, whole=not problems)
    for problem in problems:
        print(f"warning: {problem}; run the board again, which redoes its cells", file=sys.stderr)
    return table


def seen_whole(folder: Path) -> bool:
    """Whether all parts are whole, as far as sizes and times of their files tell; else their checksums have to."""
    return _stamped(folder) and attempts(lambda: _times(folder)) == _read(folder / _SEEN)


def _made(folder: Path, form: str, *, whole: bool) -> str:
    """A table that is made now, with all others; readers refuse damaged parts, as far as they read them."""
    from bench.report.tables import write_tables

    try:
        with Store(folder).lock("compact", wait=True):  # no part is merged meanwhile
            stamp, files = attempts(lambda: _digest(folder)), attempts(lambda: _times(folder))
            write_tables(folder)
            if whole:
                write_atomic(folder / _SEEN, files)
            write_atomic(folder / _STAMP, _signed(folder, stamp))
            return (folder / FORMATS[form]).read_text(encoding="utf-8")
    except NotWritable:
        return _elsewhere(folder, form)


def _elsewhere(folder: Path, form: str) -> str:
    """A table of a read-only folder, computed in a scratch folder that stands for it."""
    from bench.report.tables import write_tables

    with tempfile.TemporaryDirectory() as scratch:
        double = Path(scratch) / folder.resolve().name
        double.mkdir()
        for name in ("parts", "plan.jsonl", "manifest.json", CERTIFICATES, AUDITS):
            (double / name).symlink_to((folder / name).resolve())
        write_tables(double)
        return (double / FORMATS[form]).read_text(encoding="utf-8")


def _stamped(folder: Path) -> bool:
    """Whether the tables are those that were made of this plan, this manifest and parts of these checksums."""
    said = _read(folder / _STAMP)
    if said is None or not all((folder / name).is_file() for name in FORMATS.values()):
        return False
    return said == _signed(folder, attempts(lambda: _digest(folder)))


def _read(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


def _damaged(folder: Path) -> list[str]:
    """What is wrong with parts, compared with their checksums."""
    return [f"{part}: {problem}" for part in part_folders(folder / "parts") if (problem := damage(part))]


def _times(folder: Path) -> bytes:
    """Sizes and times of change of the files of all parts, as a digest; what a disk loses by itself, it cannot tell."""
    digest = hashlib.sha256()
    for part in part_folders(folder / "parts"):
        for name in sorted({*FILES} & {*os.listdir(part)}):
            stat = (part / name).stat()
            digest.update(f"{part.name}/{name} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns};".encode())
    return digest.hexdigest().encode()


def _signed(folder: Path, stamp: str) -> bytes:
    """What the tables are made of, and they themselves."""
    return "\n".join([stamp, *(sha256(folder / name) for name in FORMATS.values())]).encode()


def _digest(folder: Path) -> str:
    digest = hashlib.sha256(_VERSION.encode())
    digest.update((folder / "plan.jsonl").read_bytes())
    sums = [part / SUMS for part in part_folders(folder / "parts")]
    for path in (folder / "manifest.json", folder / CERTIFICATES, folder / AUDITS / NAME, *sums):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()
