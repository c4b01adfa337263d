"""Table files of a results folder, rewritten only if their inputs have changed."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from bench.evaluation.certificates import stored as certificates
from bench.store import audits
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
_STAMP = ".tables-stamp"  # digests of inputs and tables; valid in a copy of the folder too
_SEEN = ".tables-seen"  # sizes and times of the parts' files when last checked, on this machine
_VERSION = "13"  # raise it when the same records give other tables


def current_table(folder: Path, form: str = "text") -> str:
    """Return a table of a results folder; rewrite all table files first if they are out of date.

    In a read-only folder the tables are computed and not written. A damaged part that no table reads causes a warning
    on standard error.

    Args:
        folder: a results folder with a plan and parts.
        form: a key of FORMATS.

    Returns:
        The contents of the table file.

    Raises:
        UserError: a damaged file, or no space left.
    """
    problems: list[str] = []
    if _up_to_date(folder):
        times = attempts(lambda: _times(folder))
        if times == _read(folder / _SEEN):
            return (folder / FORMATS[form]).read_text(encoding="utf-8")
        if not (problems := attempts(lambda: _damaged(folder))):
            with suppress(UserError):  # costs only the next check
                write_atomic(folder / _SEEN, times)
            return (folder / FORMATS[form]).read_text(encoding="utf-8")
    table = _rewritten(folder, form, whole=not problems)
    for problem in problems:
        print(f"warning: {problem}; run the board again, which redoes its cells", file=sys.stderr)
    return table


def table_for(folder: Path, columns: int | None, form: str = "text") -> str:
    """Return a table as `current_table`, and as text such that it fits a terminal.

    Args:
        folder: a results folder with a plan and parts.
        columns: width of the terminal; None: it goes elsewhere.
        form: a key of FORMATS.
    """
    table = current_table(folder, form)
    if form != "text" or columns is None or all(len(line) <= columns for line in table.splitlines()):
        return table
    from bench.report.tables import text_of_width  # imports pandas

    return text_of_width(folder, columns)


def check_results(folder: Path) -> None:
    """Refuse a folder without results.

    Raises:
        UserError: it has no plan.jsonl.
    """
    if (folder / "plan.jsonl").is_file():
        return
    if (folder / "tables.md").is_file():
        raise UserError(f"{folder} is no folder of attacks; its table is {folder / 'tables.md'}")
    raise UserError(f"{folder} is no results folder (it has no plan.jsonl); run a board first")


def known_undamaged(folder: Path) -> bool:
    """Return True if no file of a part has changed since all were last found whole, by sizes and times.

    Args:
        folder: a results folder.
    """
    return _up_to_date(folder) and attempts(lambda: _times(folder)) == _read(folder / _SEEN)


def _rewritten(folder: Path, form: str, *, whole: bool) -> str:
    """Return a table after writing all of them."""
    try:
        with Store(folder).lock("compact", wait=True):  # parts are not merged meanwhile
            digest, times = attempts(lambda: _digest(folder)), attempts(lambda: _times(folder))
            _write(folder)
            if whole:
                write_atomic(folder / _SEEN, times)
            write_atomic(folder / _STAMP, _stamp(folder, digest))
            return (folder / FORMATS[form]).read_text(encoding="utf-8")
    except NotWritable:
        return _of_read_only(folder, form)


def _of_read_only(folder: Path, form: str) -> str:
    """Return a table of a read-only folder, computed in a temporary folder with links to its files."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / folder.resolve().name
        copy.mkdir()
        for name in ("parts", "plan.jsonl", "manifest.json", certificates.FILE, audits.FOLDER):
            (copy / name).symlink_to((folder / name).resolve())
        _write(copy)
        return (copy / FORMATS[form]).read_text(encoding="utf-8")


def _write(folder: Path) -> None:
    from bench.report.tables import write_tables  # imports pandas

    write_tables(folder)


def _up_to_date(folder: Path) -> bool:
    """Return True if the tables were made from the present plan, manifest and parts."""
    stamp = _read(folder / _STAMP)
    if stamp is None or not all((folder / name).is_file() for name in FORMATS.values()):
        return False
    return stamp == _stamp(folder, attempts(lambda: _digest(folder)))


def _read(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


def _damaged(folder: Path) -> list[str]:
    """Return the problems of parts, compared with their checksums."""
    return [f"{part}: {problem}" for part in part_folders(folder / "parts") if (problem := damage(part))]


def _times(folder: Path) -> bytes:
    """Return a digest of sizes and times of the files of all parts; it does not detect corruption on disk."""
    digest = hashlib.sha256()
    for part in part_folders(folder / "parts"):
        for name in sorted({*FILES} & {*os.listdir(part)}):
            stat = (part / name).stat()
            digest.update(f"{part.name}/{name} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns};".encode())
    return digest.hexdigest().encode()


def _stamp(folder: Path, digest: str) -> bytes:
    """Return the digest of the inputs and the checksums of the tables."""
    return "\n".join([digest, *(sha256(folder / name) for name in FORMATS.values())]).encode()


def _digest(folder: Path) -> str:
    """Return a digest of the inputs of the tables."""
    digest = hashlib.sha256(_VERSION.encode())
    digest.update((folder / "plan.jsonl").read_bytes())
    sums = [part / SUMS for part in part_folders(folder / "parts")]
    for path in (folder / "manifest.json", folder / certificates.FILE, folder / audits.FOLDER / audits.NAME, *sums):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()
