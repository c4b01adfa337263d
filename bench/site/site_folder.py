"""The folder of a site: written whole, compared, and no other folder overwritten."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.store.parts import sha256
from defenses.utils.errors import UserError
from defenses.utils.files import make_folder, write_whole

DESCRIPTION = "data/site.json"
_AGAIN = "build the site again, which writes it whole"


def _description(out: Path) -> dict[str, Any] | None:
    """Return the description of a site; None where a folder holds none."""
    try:
        content = json.loads((out / DESCRIPTION).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    ours = isinstance(content, dict) and isinstance(content.get("files"), dict) and "purebench" in content
    return content if ours else None


def check_ours(out: Path) -> None:
    """Refuse a folder that holds something else than a site.

    Args:
        out: the folder; it need not exist.

    Raises:
        UserError: it is a file, or not empty and without the description of a site.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; choose a folder with --out")
    if out.is_dir() and any(out.iterdir()) and _description(out) is None:
        raise UserError(f"{out} is not empty and holds no site of purebench (no {DESCRIPTION}); choose another --out")


def is_current(out: Path, inputs: Mapping[str, object]) -> bool:
    """Return True if a folder holds the site of these inputs, and every file is as it was written."""
    content = _description(out)
    if content is None or any(content.get(name) != value for name, value in inputs.items()):
        return False
    return all(_sha(out / path) == sha for path, sha in content["files"].items())


def differences(out: Path, files: Mapping[str, bytes]) -> list[str]:
    """Return the files that are missing in a folder, differ, or belong to another build, one line each.

    Args:
        out: the folder.
        files: of the site, by path.
    """
    lines = []
    for path, data in files.items():
        sha = _sha(out / path)
        if sha != hashlib.sha256(data).hexdigest():
            lines.append(f"{path} {'is missing' if sha is None else 'differs'}")
    earlier = (_description(out) or {"files": {}})["files"]
    return lines + [f"{path} is not part of it" for path in earlier if path not in files and (out / path).is_file()]


def write_site(out: Path, files: Mapping[str, bytes]) -> None:
    """Write a site, each file whole or not at all, and remove those of an earlier build that it has no more.

    The description comes first: a build that is cut short is known as ours, and as unfinished.

    Args:
        out: the folder.
        files: of the site, by path.

    Raises:
        UserError: the folder cannot be written.
    """
    earlier = (_description(out) or {"files": {}})["files"]
    make_folder(out)
    for path in (DESCRIPTION, *(path for path in files if path != DESCRIPTION)):
        if _sha(out / path) != hashlib.sha256(files[path]).hexdigest():
            make_folder((out / path).parent)
            write_whole(out / path, files[path], _AGAIN)
    inside = os.path.realpath(out)
    for path in earlier:
        if path not in files and os.path.realpath(out / path).startswith(inside + os.sep):
            with suppress(OSError):  # gone already
                (out / path).unlink()
                (out / path).parent.rmdir()


def _sha(file: Path) -> str | None:
    """Return the sha256 of a file; None where there is none."""
    try:
        return sha256(file)
    except OSError:
        return None
