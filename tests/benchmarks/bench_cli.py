"""How long the command takes where nothing heavy is needed.

Run: python tests/benchmarks/bench_cli.py

Medians of eleven runs, interleaved: `--help` (at most 0.3 s), `ls` (0.5 s), and a board with nothing to do (3 s).
The bare interpreter's start is printed beside them.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUNS = 11


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = str(Path(scratch) / "quickstart")
        small = ["run", "quickstart", "--out", out, "--defense", "undefended", "pgd-at", "--quiet"]
        command = [sys.executable, "-m", "bench"]
        subprocess.run([*command, *small], cwd=ROOT, check=True)
        cases = {
            "python -c pass": ([sys.executable, "-c", "pass"], None),
            "purebench --help": ([*command, "--help"], 0.3),
            "purebench ls": ([*command, "ls"], 0.5),
            "purebench run, nothing to do": ([*command, *small], 3.0),
        }
        seconds: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(RUNS):
            for name, (words, _) in cases.items():
                begin = time.perf_counter()
                subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
                seconds[name].append(time.perf_counter() - begin)
    for name, (_, limit) in cases.items():
        bound = "" if limit is None else f" (at most {limit} s)"
        print(f"{name}: {statistics.median(seconds[name]):.3f} s{bound}")


if __name__ == "__main__":
    main()
