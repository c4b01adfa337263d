"""How much faster two workers are than one, on a digits board; start-up, checks and tables included.

    python tests/benchmarks/bench_workers.py [--board quickstart] [--repeats 3]

One and two workers take turns, each in a fresh folder. Printed per turn: wall seconds, the sum of what the cells took,
and how much of the workers' time went into cells. Where the cells take longer with two workers than with one, the
machine is shared with something else (or short of memory bandwidth), and the ratio is too low by that.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def turn(board: str, workers: int) -> tuple[float, float]:
    """(wall seconds of the command, seconds that its cells took)."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "bench", "run", board, "--out", scratch, "--quiet"]
        begin = time.perf_counter()
        subprocess.run([*command, "--workers", str(workers)], cwd=ROOT, check=True)
        wall = time.perf_counter() - begin
        parts = Path(scratch, "parts").glob("*/cells.jsonl")
        lines = [json.loads(line) for part in parts for line in part.read_text().splitlines()]
    return wall, sum(line["seconds_attack"] + line["seconds_verdict"] for line in lines)


def main() -> None:
    """Take turns and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--board", default="quickstart")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    walls: dict[int, list[float]] = {1: [], 2: []}
    cells: dict[int, list[float]] = {1: [], 2: []}
    for i in range(arguments.repeats):
        for workers in (1, 2):
            wall, seconds = turn(arguments.board, workers)
            walls[workers].append(wall)
            cells[workers].append(seconds)
            share = seconds / (workers * wall)
            print(f"turn {i + 1}, {workers} workers: {wall:.1f} s, cells {seconds:.1f} s, busy {share:.0%}", flush=True)
    one, two = (statistics.median(walls[w]) for w in (1, 2))
    slower = statistics.median(cells[2]) / statistics.median(cells[1])
    print(f"2 workers are {one / two:.2f} times 1 (medians of {arguments.repeats})")
    print(f"cells took {slower:.2f} times as long with 2 workers; without that: {one / two * slower:.2f} times")


if __name__ == "__main__":
    main()
