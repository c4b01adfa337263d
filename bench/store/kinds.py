"""Tell the kinds of results folders apart: each has a function of `bench` that reads it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from bench.store.audits import is_audit_folder
from defenses.utils.errors import UserError

LOADERS = {
    "a board": "load_results",
    "accuracy under corruptions": "load_corruptions",
    "certified radii": "load_smoothing",
    "poisoned trainings": "load_poisoning",
    "audits": "load_audits",
}
Paths = str | Path | Iterable[str | Path]
NO_RESULTS = "{} holds no results; give the folder of a run, as results/quickstart"


def folder_named(path: object) -> Path:
    """Return the path of a results folder; refuse what is no path."""
    if not isinstance(path, str | os.PathLike):
        raise UserError(f"the results are {str(path)[:40]!r}; give the folder of a run, as results/quickstart")
    return Path(path)


def paths_of(paths: Paths) -> list[Path]:
    """Return one path or several as a list."""
    if isinstance(paths, Iterable) and not isinstance(paths, str):
        return [folder_named(path) for path in paths]
    return [folder_named(paths)]


def kind_of(folder: Path) -> str | None:
    """Return what a folder holds, a key of `LOADERS`; None for a folder without results."""
    if (folder / "parts").is_dir() or (folder / "plan.jsonl").is_file():
        return "a board"
    if (folder / "plan.json").is_file():
        return "poisoned trainings"
    if is_audit_folder(folder):
        return "audits"
    about = next((about for path in sorted(folder.glob("*.jsonl")) if (about := _about(path))), {})
    if "sigma" in about:
        return "certified radii"
    return "accuracy under corruptions" if {"label", "draws"} <= about.keys() else None


def _about(path: Path) -> dict[str, object]:
    """Return what the first line of a JSON-lines file says of its work; {} where it says nothing."""
    try:
        with path.open(encoding="utf-8") as file:
            about = json.loads(file.readline())["about"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return {}
    return about if isinstance(about, dict) else {}


def refuse_other_kind(folder: Path, *loaders: str) -> None:
    """Refuse a folder that other functions read.

    Args:
        folder: of results.
        *loaders: names of the functions for it.

    Raises:
        UserError: it holds results of another kind.
    """
    kind = kind_of(folder)
    if kind is not None and LOADERS[kind] not in loaders:
        raise UserError(f"{folder} holds {kind}; read it with bench.{LOADERS[kind]}")
