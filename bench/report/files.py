"""Table files of a results folder, rewritten only if their inputs have changed."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from bench.evaluation.certificates import stored as certificates
from bench.store import audits
from bench.store.folder import NotWritable, write_atomic
from bench.store.manifest import read_manifest
from bench.store.parts import attempts, damage, part_folders, sha256
from defenses.utils.errors import UserError
from defenses.utils.hints import warn

FORMATS = {
    "text": "tables.txt",
    "markdown": "tables.md",
    "csv": "tables.csv",
    "latex": "tables.tex",
    "html": "tables.html",
}
_STAMP = ".tables-stamp"
_VERSION = "17"  # raise it when the same records give other tables


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
        UserError: a damaged file.
    """
    if known_undamaged(folder):
        return (folder / FORMATS[form]).read_text(encoding="utf-8")
    from bench.report.tables import table_texts  # imports pandas

    inputs = attempts(lambda: _inputs(folder))
    texts = table_texts(folder)[1]
    problems = attempts(lambda: [f"{p}: {fault}" for p in part_folders(folder / "parts") if (fault := damage(p))])
    with suppress(NotWritable):
        for name, text in texts.items():
            write_atomic(folder / name, text)
        if not problems:
            write_atomic(folder / _STAMP, _stamp(folder, inputs))
    for problem in problems:
        warn(f"{problem}; run the board again, which redoes its cells")
    return texts[FORMATS[form]]


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
    """Return True if the tables are of the present results, and no file of a part has changed since all were whole.

    Args:
        folder: a results folder.
    """
    if not all((folder / name).is_file() for name in (_STAMP, "plan.jsonl", *FORMATS.values())):
        return False
    return (folder / _STAMP).read_bytes() == _stamp(folder, attempts(lambda: _inputs(folder)))


def _stamp(folder: Path, inputs: str) -> bytes:
    """Return the digest of the inputs, and the checksums of the tables."""
    return "\n".join([inputs, *(sha256(folder / name) for name in FORMATS.values())]).encode()


def _inputs(folder: Path) -> str:
    """Return a digest of what tables are made of: small files, claims, and size and times of each file of a part."""
    digest = hashlib.sha256(_VERSION.encode())
    for name in (
        "plan.jsonl",
        "challenges.jsonl",
        "manifest.json",
        certificates.FILE,
        f"{audits.FOLDER}/{audits.NAME}",
    ):
        if (folder / name).is_file():
            digest.update((folder / name).read_bytes())
    for file in _claims(folder):
        digest.update(file.read_bytes())
    for part in part_folders(folder / "parts"):
        for file in sorted(part.iterdir()):
            stat = file.stat()
            digest.update(f"{part.name}/{file.name} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns};".encode())
    return digest.hexdigest()


def _claims(folder: Path) -> list[Path]:
    """Return the files of the claims that tables show: beside the protocols of a board, and else none."""
    if not read_manifest(folder).get("presets"):
        return []
    from bench.analysis import claim_files  # imports pydantic

    return sorted(claim_files.CLAIMS.glob("*.toml"))
