"""Environments and warnings of two runs, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bench.analysis.caveats import caveats
from bench.analysis.diff.side import RunSide
from bench.store.manifest import read_manifest

_ALWAYS = ("torch", "threads", "device", "processor")  # shown even if they are equal
_UNKNOWN = "unknown"


def environments(old: RunSide, new: RunSide) -> list[tuple[str, str, str]]:
    """Return (what, old, new) of the libraries, code and machines that made the cells, as far as they differ.

    Torch, its threads, the device and the processor are always among them. Several values stand beside each other.
    """
    before, after = _values(old), _values(new)
    names = [*_ALWAYS, *sorted(({*before, *after}) - {*_ALWAYS})]
    rows = [(name, before.get(name, _UNKNOWN), after.get(name, _UNKNOWN)) for name in names]
    return [row for row in rows if row[0] in _ALWAYS or row[1] != row[2]]


def _values(side: RunSide) -> dict[str, str]:
    """Return the environment of the runs that made the cells of a side."""
    made = {line.get("run") for line in side.lines.values() if line["status"] != "missing"}
    found: dict[str, set[str]] = {}
    for run in (run for run in read_manifest(side.folder).get("runs", []) if run["id"] in made):
        hardware, git = run.get("hardware") or {}, run.get("git") or {}
        values: dict[str, object] = {**run.get("versions", {}), "threads": run.get("threads")}
        values |= {name: hardware.get(name) for name in ("device", "processor", "system")}
        if git:
            values["commit"] = f"{git.get('commit')}{' (changed)' if git.get('dirty') else ''}"
        for name, value in values.items():
            found.setdefault(name, set()).add(_UNKNOWN if value is None else str(value))
    return {name: " / ".join(sorted(values)) for name, values in found.items()}


def warnings_of(old: RunSide, new: RunSide) -> list[tuple[str, str, str]]:
    """Return ("new" or "gone", defense, text) of all that one run alone warns of: attacks, cells, gradients, audits."""
    before, after = (dict.fromkeys(_warnings(side)) for side in (old, new))
    gone = [("gone", *warning) for warning in before if warning not in after]
    return [("new", *warning) for warning in after if warning not in before] + gone


def _warnings(side: RunSide) -> Iterator[tuple[str, str]]:
    """Yield the (defense, text) of all warnings of a side."""
    for line in side.lines.values():
        notes: Mapping[str, object] = line
        for kind in ("warnings", "notes"):
            values = notes.get(kind)
            for text in values if isinstance(values, list) else ():
                yield line["defense"], f"{line['attack']}: {text}"
        if line["error"] and line["status"] != "missing":
            yield line["defense"], f"{line['attack']} ({line['view']}), {line['status']}: {line['error']}"
    for defense, texts in caveats(side.folder, side.results).items():
        yield from ((defense, text) for text in texts)
