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
    """The audits of a results folder, as JSON has them; none where there is no file.

    Raises:
        UserError: the file is damaged, or of a newer version.
    """
    file = results / FOLDER / NAME
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError):
        said = None
    if not isinstance(said, dict) or not is_whole(said) or not isinstance(said.get("audits"), list):
        raise UserError(f"{file} is damaged; remove it and run purebench audit again, which repeats nothing")
    if said.get("schema", 0) > SCHEMA:
        raise UserError(f"{file} is of a newer version; use the version of purebench that wrote it")
    return list(said["audits"])
