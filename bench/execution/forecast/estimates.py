"""What a run will take: from earlier results, or from a probe; and how far off earlier forecasts were.

A forecast lies in `forecast.json` of the results folder; a run puts what it says of its cells into its own entry of
the manifest, so that it can be compared with what the run took.
"""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.spec.cell import Cell, row_of
from defenses.utils.text import counted

FILE = "forecast.json"
SAMPLE = "a few images"  # a source: see `bench.execution.forecast.sampled`
_LEAST = 0.5  # seconds of a row's cells; the ratio of anything shorter says nothing


@dataclass(frozen=True)
class Forecast:
    """What one cell of a row takes.

    Args:
        seconds: of the attack and the verdict.
        evaluations: of both; an image through a network forward is 1, backward 2.
        source: "results" of finished cells, a "probe", `SAMPLE`, or "at least" when the probe was cut short.
    """

    seconds: float
    evaluations: float
    source: str


def measured(cells: Iterable[Cell], lines: Mapping[str, Mapping[str, Any]]) -> dict[str, Forecast]:
    """By row (see `row_of`), what its finished cells took on average.

    Args:
        cells: of the board.
        lines: of the stored cells, by key.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for cell in cells:
        line = lines.get(cell.key)
        if line is not None and line["status"] == "ok" and (cost := _cost(line)) is not None:
            found.setdefault(row_of(cell), []).append(cost)
    means = {row: [sum(column) / len(costs) for column in zip(*costs, strict=True)] for row, costs in found.items()}
    return {row: Forecast(seconds, evaluations, "results") for row, (seconds, evaluations) in means.items()}


def _cost(line: Mapping[str, Any]) -> tuple[float, float] | None:
    try:
        seconds = line["seconds_attack"] + line["seconds_verdict"]
        forwards = line["forwards"] + line["forwards_verdict"]
        return seconds, forwards + 2 * (line["backwards"] + line["backwards_verdict"])
    except (KeyError, TypeError):  # of an older version
        return None


def read_forecast(folder: Path) -> dict[str, Forecast]:
    """The forecast in a results folder; empty when there is none, or none that can be read."""
    try:
        rows = json.loads((folder / FILE).read_bytes())["rows"]
        found = {row: Forecast(**values) for row, values in rows.items()}
        return {row: f for row, f in found.items() if math.isfinite(f.seconds + f.evaluations)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def write_forecast(folder: Path, rows: Mapping[str, Forecast]) -> None:
    """Put a forecast into a results folder, which is made if need be."""
    from bench.store.folder import disk_errors, write_atomic

    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    content = {"rows": {row: asdict(forecast) for row, forecast in rows.items()}}
    write_atomic(folder / FILE, json.dumps(content, indent=1, sort_keys=True) + "\n")


def run_entry(forecast: Mapping[str, Forecast], pending: Iterable[Cell]) -> dict[str, dict[str, float]]:
    """What a run's entry of the manifest keeps: seconds and evaluations per cell, by row."""
    rows = dict.fromkeys(row_of(c) for c in pending)
    return {
        row: {"seconds": round(known.seconds, 4), "evaluations": round(known.evaluations, 1)}
        for row in rows
        if (known := forecast.get(row)) is not None and known.source != "at least"
    }


def hindsight(manifest: Mapping[str, Any], cells: Iterable[Cell], lines: Mapping[str, Mapping[str, Any]]) -> str | None:
    """How far off earlier forecasts were, in one line; None when there is nothing to compare.

    Both sides are the seconds of cells, attack and verdict: what starts workers and loads libraries is in neither.
    The worst row is one of those that took half a second at least.

    Args:
        manifest: of the results folder.
        cells: of the board.
        lines: of the stored cells, by key.
    """
    told = [run for run in manifest.get("runs", []) if isinstance(run.get("forecast"), dict)]
    forecasts = {run["id"]: run["forecast"] for run in told}
    totals: dict[str, tuple[float, float]] = {}
    runs = set()
    for cell in cells:
        line, row = lines.get(cell.key), row_of(cell)
        if line is None or line["status"] != "ok" or (cost := _cost(line)) is None:
            continue
        said = forecasts.get(line.get("run"), {}).get(row)
        if said is not None and cost[0] > 0:
            runs.add(line["run"])
            before = totals.get(row, (0.0, 0.0))
            totals[row] = before[0] + said["seconds"], before[1] + cost[0]
    if not totals:
        return None
    said, took = (sum(column) for column in zip(*totals.values(), strict=True))
    ratios = {row: s / t for row, (s, t) in totals.items() if t >= _LEAST}
    detail = counted(len(runs), "run")
    if ratios:
        worst = max(ratios, key=lambda row: abs(math.log(max(ratios[row], 1e-9))))
        detail += f"; worst row {ratios[worst]:.2g}: {worst}"
    return f"earlier forecasts: {said / took:.2g} times the time it took ({detail})"


def makespan(seconds: Iterable[float], workers: int) -> float:
    """How long cells take with several workers, the longest first."""
    ends = [0.0] * workers
    for cell in sorted(seconds, reverse=True):
        heapq.heapreplace(ends, ends[0] + cell)
    return max(ends)
