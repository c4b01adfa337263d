"""A board over a folder of 50,000 pictures of 224 x 224, and its tables: memory of each process, and time.

Not collected by pytest. `python tests/large/images.py [FOLDER]` makes 500 pictures under 100 names each in a folder
(default: a temporary one), runs a board with two workers, and fails at the bounds in about two minutes.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from large_folders import write_board, write_pictures
from process_memory import Watched, watched

BLUR = "motion_blur/3"  # of all corruptions the one that takes most memory
ABOVE, FIRST, TABLES = 300, 15, 1024  # MiB above the imports, seconds to the first cell, MiB of the tables


def told(what: str, found: Watched) -> None:
    """Print what a command took."""
    for number, above in found.above.items():
        kind = "worker" if number in found.workers else "command"
        print(f"{what} | {kind} | {found.peaks[number]:.0f} MiB | {above:.0f} MiB above the imports", flush=True)


def main(folder: Path) -> int:
    """Make the folder where there is none; run the board with and without a cached hash, and blurred; then tables."""
    pictures = folder / "pictures"
    if not pictures.is_dir():
        print(write_pictures(pictures, 500, 100), "pictures", flush=True)
    fine = True
    shutil.rmtree(folder / "cache", ignore_errors=True)  # of hashes, which the second run finds
    for out in ("cold", "warm", "blurred"):
        few = out == "blurred"
        board = write_board(folder, pictures, "first-200" if few else "first-1000", corruption=BLUR if few else "")
        shutil.rmtree(folder / out, ignore_errors=True)
        run = watched("run", board, "--workers", 2, "--out", out, "--quiet", cwd=folder, mark=f"{out}/parts/cell-*")
        told(f"run, {out}", run)
        print(f"run, {out} | first cell after {run.first} s | exit code {run.code}")
        fine &= run.code == 0 and len(run.workers) == 2 and run.first is not None
        fine &= few or run.first <= FIRST  # a block of blurred pictures takes that long by itself
        fine &= max(run.above.values()) <= ABOVE
        print("" if run.code == 0 else run.output)
    for file in (folder / "cold").glob("tables.*"):
        file.unlink()
    table = watched("table", "cold", cwd=folder, mark="cold/tables.md")
    told("table", table)
    return 0 if fine and table.code == 0 and max(table.peaks.values()) <= TABLES else 1


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main(Path(sys.argv[1]).resolve()))
    with tempfile.TemporaryDirectory() as scratch:
        sys.exit(main(Path(scratch)))
