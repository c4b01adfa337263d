"""Read and write the audits of a results folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from bench.store.folder import Store, write_atomic
from defenses.utils.checksums import is_whole, with_checksum
from defenses.utils.errors import UserError
from defenses.utils.json_values import Json, JsonView

FOLDER, NAME, SCHEMA = "audit", "audit.json", 1
VERSION = 4  # of an audit; raised when the same defense would get other findings
SOFTMAX = "logits and no softmax"  # a check that a run makes too


def read_audits(results: Path) -> list[dict[str, object]]:
    """Return the audits of a results folder as parsed JSON; an empty list where there is no file.

    Raises:
        UserError: the file is damaged, or a newer version wrote it.
    """
    file = results / FOLDER / NAME
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not is_whole(content) or not isinstance(content.get("audits"), list):
        raise UserError(f"{file} is damaged; remove it and run purebench audit again, which repeats nothing")
    if content.get("schema", 0) > SCHEMA:
        raise UserError(f"{file} is of a newer version; use the version of purebench that wrote it")
    return list(content["audits"])


def current_audits(results: Path) -> list[Json]:
    """Return the audits of `read_audits` that were not made with an earlier state of the user's code and files."""
    return [audit for audit in read_audits(results) if not audit.get("outdated")]


def version_of(audit: JsonView) -> int:
    """Return the version of an audit; 0 where none was recorded, which is earlier than all."""
    version = audit.get("version")
    return version if type(version) is int else 0


def write_audits(results: Path, audits: list[dict[str, object]]) -> None:
    """Write the audits of a results folder, whole; the caller holds the lock "audit" of its `Store`."""
    content = with_checksum({"schema": SCHEMA, "audits": audits})
    write_atomic(results / FOLDER / NAME, json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n")


def mark_audits(results: Path, reason_of: Callable[[JsonView], str | None]) -> list[Json]:
    """Set which audits of a results folder do not count; return these.

    Args:
        results: the results folder.
        reason_of: returns why an audit does not count, "" if it does, None to leave it as it is.
    """

    def marked() -> tuple[list[Json], bool]:
        audits, changed = read_audits(results), False
        for audit in audits:
            reason, before = reason_of(audit), audit.get("outdated", "")
            if reason is not None and reason != before:
                audit.pop("outdated", None)
                audit |= {"outdated": reason} if reason else {}
                changed = True
        return audits, changed

    audits, changed = marked()
    if changed:
        with Store(results).lock("audit", wait=True):  # another process may have written in between
            audits, _ = marked()
            write_audits(results, audits)
    return [audit for audit in audits if audit.get("outdated")]


def is_audit_folder(folder: Path) -> bool:
    """Return True if a folder holds audits and no board."""
    return (folder / FOLDER / NAME).is_file() and not any((folder / n).exists() for n in ("parts", "plan.jsonl"))
