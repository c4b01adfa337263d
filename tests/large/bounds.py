"""What large and committed results may take, each in a process of its own, measured from outside; fails above a bound.

Not collected by pytest. `python tests/large/bounds.py [site html pdf records]` runs all, or those named:

site: the site of all committed results, at most 60 s and 1.5 GB.
html, pdf: the report on results/digits-linf, at most 20 s.
records: of 6,000,000 generated records (200 defenses x 30 rows x 1,000 images) `leaderboard()` and the pages of the
    board, together at most 120 s, and 2 GiB each.

Seconds are those of the processor, divided by how much slower it is just now than an idle one (`helpers/speed.py`):
others may be at work, and on an idle machine the clock shows no more.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import bench_tables
from boards import ROOT
from process_memory import Taken, taken
from speed import slowness

GB, GIB = 1e9 / 2**20, 1024.0  # MiB


def main(names: Iterable[str]) -> None:
    """Measure the cases, and exit with an error if one is above its bound."""
    above: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            seconds, peak = BOUNDS[name]
            slow = slowness()
            found = CASES[name](Path(scratch))
            slow = max(slow, slowness())
            for part, took in found.items():
                print(f"{part}: {took}", flush=True)
            total, most = sum(t.processor for t in found.values()) / slow, max(t.peak for t in found.values())
            told = f"{name}: {total:.1f} s of at most {seconds}, {most:.0f} MiB of at most {peak:.0f}"
            print(f"{told} (the machine is {slow:.1f} times slower than an idle one)", flush=True)
            if total > seconds or most > peak:
                above.append(told)
    if above:
        raise SystemExit("\n".join(above))


def _purebench(*words: object) -> Taken:
    return taken(sys.executable, "-m", "bench", *words)


def _site(scratch: Path) -> dict[str, Taken]:
    folders = [folder for folder in sorted((ROOT / "results").iterdir()) if folder.is_dir()]
    return {"site": _purebench("site", *folders, "--out", scratch / "site")}


def _report(scratch: Path, form: str) -> dict[str, Taken]:
    return {f"report.{form}": _purebench("report", ROOT / "results/digits-linf", "--out", scratch / f"report.{form}")}


def _records(scratch: Path) -> dict[str, Taken]:
    folder = scratch / "records"
    bench_tables.make(folder, bench_tables.Shape(1_000, False, defenses=200, rows=30))
    works = {"leaderboard()": bench_tables.LEADERBOARD, "pages of the board": bench_tables.PAGES}
    head = "import sys\nfrom pathlib import Path\n"
    return {name: taken(sys.executable, "-c", head + work, folder) for name, work in works.items()}


CASES = {
    "site": _site,
    "html": partial(_report, form="html"),
    "pdf": partial(_report, form="pdf"),
    "records": _records,
}
BOUNDS = {"site": (60, 1.5 * GB), "html": (20, 1.5 * GB), "pdf": (20, 1.5 * GB), "records": (120, 2 * GIB)}


if __name__ == "__main__":
    main(sys.argv[1:] or CASES)
