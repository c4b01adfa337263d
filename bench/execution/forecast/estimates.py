"""Estimate the cost of a run from earlier results or a probe, and compare earlier forecasts with the cost.

A forecast is stored in `forecast.json` of the results folder. A run copies the rows of its cells to its entry of the
manifest, so that they can be compared with its cost.
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
from bench.store.folder import disk_errors, write_atomic
from bench.store.parts import CellRecord
from defenses.utils.text import counted

FILE = "forecast.json"
SAMPLE = "a few images"  # a source of forecasts: see `bench.execution.forecast.sampled`
_LEAST = 0.5  # seconds of a row's cells; ratios of shorter times are noise


@dataclass(frozen=True)
class Forecast:
    """The cost of one cell of a row.

    Args:
        seconds: seconds of the attack and the verdict.
        evaluations: evaluations of both; an image through a network forward is 1, backward 2.
        source: "results" of finished cells, a "probe", `SAMPLE`, or "at least" when the probe was cut short.
    """

    seconds: float
    evaluations: float
    source: str


def measured(rows: Mapping[str, str], lines: Mapping[str, CellRecord]) -> dict[str, Forecast]:
    """Return the mean cost of the finished cells of each row, by row.

    Args:
        rows: row (see `row_of`) of each cell of the board, by key.
        lines: lines of the stored cells, by key.
    """
    costs: dict[str, list[tuple[float, float]]] = {}
    for key, row in rows.items():
        line = lines.get(key)
        if line is not None and line["status"] == "ok" and (cost := _cost(line)) is not None:
            costs.setdefault(row, []).append(cost)
    means = {row: [sum(column) / len(of_row) for column in zip(*of_row, strict=True)] for row, of_row in costs.items()}
    return {row: Forecast(seconds, evaluations, "results") for row, (seconds, evaluations) in means.items()}


def _cost(line: CellRecord) -> tuple[float, float] | None:
    """Return the (seconds, evaluations) of a cell; None where its line lacks them."""
    try:
        seconds = line["seconds_attack"] + line["seconds_verdict"]
        forwards = line["forwards"] + line["forwards_verdict"]
        return seconds, forwards + 2 * (line["backwards"] + line["backwards_verdict"])
    except (KeyError, TypeError):  # of an older version
        return None


def read_forecast(folder: Path) -> dict[str, Forecast]:
    """Return the forecast in a results folder; empty where it is missing or damaged."""
    try:
        rows = json.loads((folder / FILE).read_bytes())["rows"]
        forecasts = {row: Forecast(**values) for row, values in rows.items()}
        return {row: f for row, f in forecasts.items() if math.isfinite(f.seconds + f.evaluations)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def write_forecast(folder: Path, rows: Mapping[str, Forecast]) -> None:
    """Write a forecast to a results folder, which is created where it does not exist."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    content = {"rows": {row: asdict(forecast) for row, forecast in rows.items()}}
    write_atomic(folder / FILE, json.dumps(content, indent=1, sort_keys=True) + "\n")


def run_entry(forecast: Mapping[str, Forecast], pending: Iterable[Cell]) -> dict[str, dict[str, float]]:
    """Return the forecast of a run for its entry of the manifest: seconds and evaluations per cell, by row.

    Args:
        forecast: forecasts by row.
        pending: cells of the run.
    """
    rows = dict.fromkeys(row_of(c) for c in pending)
    return {
        row: {"seconds": round(cost.seconds, 4), "evaluations": round(cost.evaluations, 1)}
        for row in rows
        if (cost := forecast.get(row)) is not None and cost.source != "at least"
    }


def hindsight(manifest: Mapping[str, Any], rows: Mapping[str, str], lines: Mapping[str, CellRecord]) -> str | None:
    """Compare earlier forecasts with the cost, in one line; None where there is nothing to compare.

    Compared are the seconds of attacks and verdicts, without the start of workers and the import of libraries. The
    worst row is one of those that took at least half a second.

    Args:
        manifest: manifest of the results folder.
        rows: see `measured`.
        lines: lines of the stored cells, by key.
    """
    forecasts = {
        run["id"]: run["forecast"] for run in manifest.get("runs", []) if isinstance(run.get("forecast"), dict)
    }
    totals: dict[str, tuple[float, float]] = {}
    compared = set()
    for key, row in rows.items():
        line = lines.get(key)
        if line is None or line["status"] != "ok" or (cost := _cost(line)) is None:
            continue
        forecast = forecasts.get(line.get("run"), {}).get(row)
        if forecast is not None and cost[0] > 0:
            compared.add(line["run"])
            before = totals.get(row, (0.0, 0.0))
            totals[row] = before[0] + forecast["seconds"], before[1] + cost[0]
    if not totals:
        return None
    expected, taken = (sum(column) for column in zip(*totals.values(), strict=True))
    ratios = {row: e / t for row, (e, t) in totals.items() if t >= _LEAST}
    detail = counted(len(compared), "run")
    if ratios:
        worst = max(ratios, key=lambda row: abs(math.log(max(ratios[row], 1e-9))))
        detail += f"; worst row {ratios[worst]:.2g}: {worst}"
    return f"earlier forecasts: {expected / taken:.2g} times the time it took ({detail})"


def makespan(seconds: Iterable[float], workers: int) -> float:
    """Return the seconds until all cells are finished, run the longest first.

    Args:
        seconds: seconds of each cell.
        workers: number of cells that run at once.
    """
    ends = [0.0] * workers
    for cell_seconds in sorted(seconds, reverse=True):
        heapq.heapreplace(ends, ends[0] + cell_seconds)
    return max(ends)
