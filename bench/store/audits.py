"""Read the audits of a results folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from defenses.utils.checksums import is_whole
from defenses.utils.errors import UserError

FOLDER, NAME, SCHEMA = "audit", "audit.json", 1
SOFTMAX = "logits and no softmax"  # a check that a run makes too


def read_audits(results: Path) -> list[dict[str, Any]]:
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


def is_audit_folder(folder: Path) -> bool:
    """Return True if a folder holds audits and no board."""
    return (folder / FOLDER / NAME).is_file() and not any((folder / n).exists() for n in ("parts", "plan.jsonl"))
