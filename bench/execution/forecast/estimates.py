"""Estimate the cost of a run from earlier results or a probe.

A forecast is stored in `forecast.json` of the results folder.
"""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.store.folder import disk_errors, write_atomic
from bench.store.parts import CellRecord

FILE = "forecast.json"
SAMPLE = "a few images"  # a source of forecasts: see `bench.execution.forecast.sampled`


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
    for line, row in ((lines[key], row) for key, row in rows.items() if key in lines):
        if line["status"] != "ok":
            continue
        with suppress(KeyError, TypeError):  # a line of an older version
            passes = line["forwards"] + line["forwards_verdict"]
            passes += 2 * (line["backwards"] + line["backwards_verdict"])
            cost = line["seconds_attack"] + line["seconds_verdict"], passes
            costs.setdefault(row, []).append(cost)
    means = {row: [sum(column) / len(of_row) for column in zip(*of_row, strict=True)] for row, of_row in costs.items()}
    return {row: Forecast(seconds, evaluations, "results") for row, (seconds, evaluations) in means.items()}


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


def makespan(seconds: Iterable[float], workers: int) -> float:
    """Return the seconds until all cells are finished, run the longest first.

    Args:
        seconds: seconds of each cell.
        workers: number of cells that run at once; 0: one, in this process.
    """
    ends = [0.0] * max(1, workers)
    for cell_seconds in sorted(seconds, reverse=True):
        heapq.heapreplace(ends, ends[0] + cell_seconds)
    return max(ends)
