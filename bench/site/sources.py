"""Sources of a site: results folders, their runs and their files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bench.evaluation.certificates.stored import FILE
from bench.site.model import Run, Source
from bench.store import audits
from bench.store.kinds import NO_RESULTS, kind_of
from bench.store.manifest import read_runs
from bench.store.parts import SUMS, part_folders, sha256
from defenses.utils.errors import UserError
from defenses.utils.text import counted


def sources_of(results: Iterable[Path]) -> list[tuple[Path, Source]]:
    """Return the results folders of a site, each once.

    Args:
        results: folders of any kind.

    Raises:
        UserError: none, a folder without results, or a damaged manifest.
    """
    folders = list({folder.resolve(): folder for folder in results}.values())
    if not folders:
        raise UserError("name a results folder, as results/digits-linf")
    return [(folder, _source(folder)) for folder in folders]


def _source(folder: Path) -> Source:
    kind = kind_of(folder)
    if kind is None:
        raise UserError(NO_RESULTS.format(folder))
    runs = tuple(_run(run) for run in read_runs(folder))
    files = {file.relative_to(folder).as_posix(): sha256(file) for file in _files(folder)}
    return Source(shown(folder), kind, runs, files)


def shown(folder: Path) -> str:
    """Return a folder as a site names it: without what stands before it on this machine."""
    outside = folder.is_absolute() or ".." in folder.parts or folder == Path()
    return folder.resolve().name if outside else folder.as_posix()


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files that say what a folder holds: of a part its checksums."""
    names = ("plan.jsonl", "plan.json", "manifest.json", FILE, f"{audits.FOLDER}/{audits.NAME}")
    yield from (folder / name for name in names if (folder / name).is_file())
    yield from (part / SUMS for part in part_folders(folder / "parts") if (part / SUMS).is_file())
    yield from (file for file in sorted(folder.glob("*.jsonl")) if file.name != "plan.jsonl")


def _run(run: dict[str, Any]) -> Run:
    git, hardware = run.get("git") or {}, run.get("hardware") or {}
    machine = [str(hardware[name]) for name in ("processor", "system", "device") if hardware.get(name)]
    counts = [counted(run[name], name[:-1]) for name in ("threads", "workers") if run.get(name)]
    return Run(
        id=str(run.get("id") or ""),
        command=str(run.get("command") or ""),
        commit=str(git.get("commit") or ""),
        dirty=bool(git.get("dirty")),
        started=str(run.get("started") or ""),
        seconds=float(run.get("seconds") or math.nan),
        machine=", ".join(machine),
        threads=", ".join(counts),
        versions={str(k): str(v) for k, v in (run.get("versions") or {}).items()},
    )
