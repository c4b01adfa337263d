"""Tables on disk, brought up to date only when what they are made of has changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

from bench.store import SUMS, Store, write_atomic

FORMATS = {
    "text": "tables.txt",
    "markdown": "tables.md",
    "csv": "tables.csv",
    "latex": "tables.tex",
    "html": "tables.html",
}
_STAMP = ".tables-stamp"
_VERSION = "2"  # raised when the same records give other tables


def current_table(folder: Path) -> str:
    """The table of a results folder for the terminal; all table files are written again if they are out of date.

    Args:
        folder: with a plan and parts.

    Raises:
        UserError: a damaged file, or the folder cannot be written.
    """
    with Store(folder).lock("compact", wait=True):  # no part is merged meanwhile
        stamp, stored = _stamp(folder), folder / _STAMP
        known = stored.read_text() if stored.is_file() else ""
        if known != stamp or not all((folder / name).is_file() for name in FORMATS.values()):
            from bench.tables import write_tables

            write_tables(folder)
            write_atomic(stored, stamp)
    return (folder / FORMATS["text"]).read_text(encoding="utf-8").rstrip("\n")


def _stamp(folder: Path) -> str:
    digest = hashlib.sha256(_VERSION.encode())
    digest.update((folder / "plan.jsonl").read_bytes())
    for sums in sorted((folder / "parts").glob(f"*/{SUMS}")):
        digest.update(sums.read_bytes())
    return digest.hexdigest()
