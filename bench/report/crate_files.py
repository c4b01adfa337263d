"""Files of a results folder for a crate: size, checksum, and the run that wrote them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.store import audits
from bench.store.parts import SUMS, part_folders, read_lines, sha256

_FORMS = {
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".csv": "text/csv",
    ".md": "text/markdown",
    ".html": "text/html",
    ".pdf": "application/pdf",
    ".tex": "application/x-tex",
    ".txt": "text/plain",
    ".parquet": "application/vnd.apache.parquet",
    ".svg": "image/svg+xml",
    ".gz": "application/gzip",
}


@dataclass(frozen=True)
class Stored:
    """A file.

    Args:
        path: in its folder, with "/".
        size: in bytes.
        sha256: in hexadecimal.
        part: path of the part that holds it; "" of other files.
    """

    path: str
    size: int
    sha256: str
    part: str = ""

    @property
    def form(self) -> str:
        """Media type; "" if unknown."""
        return _FORMS.get(Path(self.path).suffix, "")


def stored_files(folder: Path) -> list[Stored]:
    """Return the files of a results folder: records of all kinds, manifest, tables, audits, and the files of parts."""
    plain = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    audit = folder / audits.FOLDER / audits.NAME
    files = [_stored(folder, path) for path in (*plain, *([audit] if audit.is_file() else []))]
    return [*files, *(stored for part in part_folders(folder / "parts") for stored in _of_part(folder, part))]


def _stored(folder: Path, path: Path, known: str = "", part: str = "") -> Stored:
    return Stored(path.relative_to(folder).as_posix(), path.stat().st_size, known or sha256(path), part)


def _of_part(folder: Path, part: Path) -> Iterator[Stored]:
    """Yield the files of a part, with the checksums that it keeps of them."""
    sums = json.loads((part / SUMS).read_bytes()) if (part / SUMS).is_file() else {}
    for path in sorted(path for path in part.iterdir() if path.is_file()):
        yield _stored(folder, path, str(sums.get(path.name, "")), part.relative_to(folder).as_posix())


def written_by(folder: Path, runs: Sequence[Mapping[str, Any]], files: Sequence[Stored]) -> dict[str, list[str]]:
    """Return the parts and files that runs wrote, by id of the run; the last one wrote the files outside of parts.

    Args:
        folder: the results folder.
        runs: of its manifest.
        files: of `stored_files`.
    """
    made: dict[str, dict[str, None]] = {str(run["id"]): {} for run in runs}
    for part in part_folders(folder / "parts"):
        for line in read_lines(part):
            if (run := str(line.get("run"))) in made:
                made[run][f"{part.relative_to(folder).as_posix()}/"] = None
    if runs:
        others = [stored.path for stored in files if not stored.part and not stored.path.startswith("plan.")]
        made[str(runs[-1]["id"])].update(dict.fromkeys(others))
    return {run: list(paths) for run, paths in made.items()}
