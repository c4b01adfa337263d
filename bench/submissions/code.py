"""Code of one's own behind a row: found by what its cells list, compared by hashes, never imported."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from bench.store.parts import CellRecord
from defenses.utils.errors import UserError
from defenses.utils.json_values import Json, JsonView
from defenses.utils.source_code import hashes, whole_hash

_LISTED = ("code", "modules", "files")  # of an entry of `bench.execution.sources`
_SHA = re.compile(r"[0-9a-f]{64}")


def plugins(lines: Iterable[CellRecord]) -> dict[str, Json]:
    """Return what `bench.execution.sources` listed of the user's code, by its name.

    Args:
        lines: of cells; "sources" of one that is damaged is passed over.
    """
    found: dict[str, Json] = {}
    for line in lines:
        sources = line.get("sources")
        for entry in sources if isinstance(sources, list) else ():
            if isinstance(entry, dict) and all(
                isinstance(entry.get(key), dict) for key in ("code", "modules", "files")
            ):
                found.setdefault(str(entry.get("name")), entry)
    return found


def unlisted(lines: Iterable[CellRecord]) -> list[str]:
    """Return the defenses and attacks in files of one's own whose code no line lists."""
    known, named = plugins(lines), dict[str, None]()
    for line in lines:
        of_cell = line["identity"]
        parts = of_cell["defense"].get("name"), of_cell["attack"][0], of_cell.get("source", {}).get("name")
        for name in map(str, parts):
            if ".py:" in name:
                named[name] = None
    return [name for name in named if name not in known]


def problems(found: Mapping[str, JsonView], files: Mapping[str, bytes]) -> Iterator[str]:
    """Yield what is wrong with code, a line each.

    Args:
        found: see `plugins`.
        files: contents by path in the folder of the code.
    """
    for name, entry in found.items():
        wanted = [*entry["code"], *entry["modules"]]
        if outside := [path for path in wanted if not _is_inside(path)]:
            yield f"{name} needs {outside[0]}, which lies outside its folder"
        elif missing := [path for path in wanted if path not in files]:
            yield f"{name} needs {missing[0]}, which is not there"
        elif changed := _changed(name, entry, files):
            yield f"{name}: {changed} is not the code that made these results"


def _changed(name: str, entry: JsonView, files: Mapping[str, bytes]) -> str:
    """Return a file that is not the one of an entry; "" if all are."""
    now = hashes({path: files[path] for path in entry["code"]}, [name.rpartition(":")[2]])
    changed = [path for path, known in entry["code"].items() if now.get(path) != known]
    changed += [path for path, known in entry["modules"].items() if whole_hash(files[path]) != known]
    return str(changed[0]) if changed else ""


def _is_inside(path: str) -> bool:
    """Return True if a path stays in its folder."""
    pure = PurePosixPath(path)
    return bool(path) and "\\" not in path and not pure.is_absolute() and ".." not in pure.parts


def packed_code(lines: Iterable[CellRecord], folder: Path) -> dict[str, bytes | Path]:
    """Return the files of code of one's own by path, and the files beside it that it read, as weights, unless changed.

    Args:
        lines: of the cells of a row.
        folder: folder of the code.

    Raises:
        UserError: code is missing, or is not the code that made the results.
    """
    found = plugins(lines)
    wanted = {path for entry in found.values() for path in (*entry["code"], *entry["modules"]) if _is_inside(path)}
    files = {path: (folder / path).read_bytes() for path in sorted(wanted) if (folder / path).is_file()}
    if faults := list(problems(found, files)):
        raise UserError(f"{faults[0]}; name the folder of the code of then with --code")
    return {**files, **{path: folder / path for path in _read(found.values(), folder) if path not in files}}


def _read(found: Iterable[JsonView], folder: Path) -> Iterator[str]:
    """Yield the files that code read, where they lie beside it and are what they were."""
    for entry in found:
        for path, known in entry["files"].items():
            file = folder / path
            if path[:1] in ("$", "?") or path.endswith("/") or not _is_inside(path) or not _has_sha(known):
                continue
            if file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == known[0]:
                yield path


def _has_sha(known: object) -> bool:
    return isinstance(known, list) and bool(known) and bool(_SHA.fullmatch(str(known[0])))
