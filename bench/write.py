"""Tables on disk, brought up to date only when what they are made of has changed."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from bench.parts import attempts, part_folders, sha256
from bench.store import SUMS, NotWritable, Store, write_atomic

FORMATS = {
    "text": "tables.txt",
    "markdown": "tables.md",
    "csv": "tables.csv",
    "latex": "tables.tex",
    "html": "tables.html",
}
_STAMP = ".tables-stamp"
_VERSION = "4"  # raised when the same records give other tables


def current_table(folder: Path, form: str = "text") -> str:
    """A table of a results folder; all table files are written again if they are out of date.

    Where they are, nothing is written; where they are not and the folder is read-only, the tables are only returned.

    Args:
        folder: with a plan and parts.
        form: a key of FORMATS.

    Raises:
        UserError: a damaged file, or no space left.
    """
    if _fresh(folder):
        return (folder / FORMATS[form]).read_text(encoding="utf-8")
    from bench.tables import write_tables

    try:
        with Store(folder).lock("compact", wait=True):  # no part is merged meanwhile
            stamp = _stamp(folder)
            write_tables(folder)
            write_atomic(folder / _STAMP, _signed(folder, stamp))
            return (folder / FORMATS[form]).read_text(encoding="utf-8")
    except NotWritable:
        return _elsewhere(folder, form)


def _elsewhere(folder: Path, form: str) -> str:
    """A table of a read-only folder, computed in a scratch folder that stands for it."""
    from bench.tables import write_tables

    with tempfile.TemporaryDirectory() as scratch:
        double = Path(scratch) / folder.resolve().name
        double.mkdir()
        for name in ("parts", "plan.jsonl", "manifest.json"):
            (double / name).symlink_to((folder / name).resolve())
        write_tables(double)
        return (double / FORMATS[form]).read_text(encoding="utf-8")


def _fresh(folder: Path) -> bool:
    stored = folder / _STAMP
    if not stored.is_file() or not all((folder / name).is_file() for name in FORMATS.values()):
        return False
    return stored.read_bytes() == _signed(folder, _stamp(folder))


def _signed(folder: Path, stamp: str) -> bytes:
    """What the tables are made of, and they themselves."""
    return "\n".join([stamp, *(sha256(folder / name) for name in FORMATS.values())]).encode()


def _stamp(folder: Path) -> str:
    return attempts(lambda: _digest(folder))


def _digest(folder: Path) -> str:
    digest = hashlib.sha256(_VERSION.encode())
    digest.update((folder / "plan.jsonl").read_bytes())
    sums = [part / SUMS for part in part_folders(folder / "parts")]
    for path in (folder / "manifest.json", *sums):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()
