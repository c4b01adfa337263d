"""The RO-Crate metadata of a submission: made by the code of reports, and compared with the files of the zip."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from bench.report.crate import Described, crate
from bench.spec.submission import CRATE, DESCRIPTION, RESULTS
from bench.store.parts import sha256
from bench.submissions.submission import files_of


def packed_crate(results: Path, label: str, files: Mapping[str, bytes | Path]) -> bytes:
    """Return the metadata of a submission.

    Args:
        results: results folder of the one defense.
        label: of the defense.
        files: the other files of the zip by name.
    """
    beside = {
        name: content if isinstance(content, bytes) else content.read_bytes()
        for name, content in files.items()
        if not name.startswith(f"{RESULTS}/")
    }
    about = "A row of a board, submitted with its results, its card and the code of its own; purebench submit check"
    described = Described(results, label, f"{RESULTS}/")
    return crate([described], beside, name=f"Submission of {label}", about=about).encode()


def crate_problems(folder: Path) -> Iterator[str]:
    """Yield where the metadata of an unpacked submission do not describe its files.

    Args:
        folder: of the unpacked zip.
    """
    if not (folder / CRATE).is_file():
        yield f"{CRATE} is missing; pack the row again"
        return
    said: dict[str, dict[str, Any]] = {}
    for entity in json.loads((folder / CRATE).read_text(encoding="utf-8"))["@graph"]:
        if entity["@type"] == "File":
            name = unquote(entity["@id"])
            if name in said:
                yield f"{CRATE} describes {name} twice"
            said[name] = entity
    there = {name: folder / name for name in files_of(folder) if name not in (CRATE, DESCRIPTION)}
    for name, file in there.items():
        entity = said.get(name)
        if entity is None:
            yield f"{CRATE} does not describe {name}"
        elif entity["contentSize"] != str(file.stat().st_size) or entity["sha256"] != sha256(file):
            yield f"{name} has another size or SHA-256 than {CRATE} says"
    yield from (f"{CRATE} describes {name}, which is missing" for name in said if name not in there)
