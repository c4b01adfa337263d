"""An unpacked submission, and what is wrong with one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.spec.submission import CARD, CODE, DESCRIPTION, RESULTS, SCHEMA
from bench.store.manifest import Manifest
from bench.store.parts import CellRecord, Stored, sha256
from defenses.utils.errors import UserError
from defenses.utils.json_values import Json


@dataclass(frozen=True)
class Finding:
    """Failure of a check.

    Args:
        check: its name, a key of `bench.spec.submission.CHECKS` or another table there.
        text: one line.
    """

    check: str
    text: str


@dataclass(frozen=True)
class Submission:
    """Unpacked row of a board, with its results.

    Args:
        folder: of the unpacked zip.
        label: of the defense.
        plan: its planned cells, in table order.
        manifest: of its results.
        cells: lines and parts of its cells by key.
        challenges: cells of images that `purebench challenge --keep` added to its board, as lines of a plan.
    """

    folder: Path
    label: str
    plan: list[CellRecord]
    manifest: Manifest
    cells: Stored
    challenges: Sequence[CellRecord] = ()

    @property
    def results(self) -> Path:
        """Return its results folder."""
        return self.folder / RESULTS

    @property
    def code(self) -> Path:
        """Return the folder of its code, which need not exist."""
        return self.folder / CODE

    @property
    def card(self) -> Path:
        """Return the file of its card, which need not exist."""
        return self.folder / CARD

    @property
    def lines(self) -> list[CellRecord]:
        """Return the lines of its stored cells, in the order of the plan."""
        return self._merged(self.plan)

    @property
    def kept(self) -> list[CellRecord]:
        """Return the lines of the stored cells of its challenges."""
        return self._merged(self.challenges)

    def _merged(self, plan: Iterable[CellRecord]) -> list[CellRecord]:
        return [{**self.cells[p["key"]][0], **p} for p in plan if p["key"] in self.cells]


def described(folder: Path, name: str) -> Json:
    """Return the contents of submission.json.

    Args:
        folder: of the unpacked zip.
        name: of the zip, for messages.

    Raises:
        UserError: it is missing, or a newer version wrote it.
    """
    try:
        content: Any = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except FileNotFoundError:
        text = f"{name} is no submission (it has no {DESCRIPTION}); pack it with purebench submit pack"
        raise UserError(text) from None
    except (OSError, ValueError, RecursionError):
        content = None
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict) or not all(map(_is_entry, files.values())) or type(content.get("schema")) is not int:
        raise UserError(f"{name}: {DESCRIPTION} is damaged; pack it again with purebench submit pack")
    if content["schema"] > SCHEMA:
        raise UserError(f"{name} was packed by a newer purebench (schema {content['schema']}): update purebench")
    return dict(content)


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("sha256"), str) and isinstance(entry.get("size"), int)


def entries(files: Mapping[str, bytes | Path]) -> dict[str, dict[str, object]]:
    """Return size and SHA-256 of files by name, as submission.json has them."""
    import hashlib

    def entry(content: bytes | Path) -> dict[str, object]:
        if isinstance(content, bytes):
            return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        return {"sha256": sha256(content), "size": content.stat().st_size}

    return {name: entry(files[name]) for name in sorted(files)}


def files_of(folder: Path) -> dict[str, bytes | Path]:
    """Return the files below a folder by name, "/" between its parts."""
    found = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    return dict(sorted(found.items()))
