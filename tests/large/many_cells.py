"""Boards of 10,000 to 100,000 cells without models: processor time and memory of each command, and of storing a cell.

Not collected by pytest. `python tests/large/many_cells.py [FOLDER]` prints the table in bench/README.md, and fails
where a command takes more than in proportion; numbers of cells after the folder measure these alone.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

import pyarrow as pa
from fake_board import result
from process_memory import Taken, taken

from bench.board.load import load_board
from bench.store.arrays import CellImages, tables_of
from bench.store.folder import Store
from bench.store.manifest import update_manifest
from bench.store.parts import part_name

BLOCK, ATTACKS = 5, 48  # with the two null attacks 50 rows of 100 cells on the 500 images of digits
PER_DEFENSE = 5000
SIZES = (10_000, 30_000, 100_000)
UNMERGED = 10_000
SLACK = 1.15  # times what the number of cells gives


def board_of(folder: Path, cells: int) -> Path:
    """Write a board of some cells."""
    defenses = "".join(
        f'[[defense]]\nname = "jpeg"\nlabel = "d{i:03}"\nparams = {{ quality = {i + 50} }}\n'
        for i in range(cells // PER_DEFENSE)
    )
    attacks = "".join(
        f'[[attack]]\nname = "foolbox:LinfPGD"\nlabel = "a{i:03}"\nparams = {{ steps = {i + 1} }}\n'
        for i in range(ATTACKS)
    )
    text = f'name = "many"\ntitle = "Many"\ndataset = "digits"\nblock = {BLOCK}\n[threat]\nnorm = "Linf"\neps = "1/5"\n'
    path = folder / "many.toml"
    path.write_text(text + defenses + attacks)
    return path


def finished(cell):
    """Return a result of a cell: half of its images right."""
    made = result(dict(cell.columns()), [1, 0] * (BLOCK // 2) + [1])
    made.line |= {"identity": cell.identity(), "run": "made"}
    return made


def fill(folder: Path, board, cells) -> None:
    """Store results of cells as merged parts."""
    store = Store(folder)
    by_defense: dict[str, list] = {}
    for cell in cells:
        by_defense.setdefault(cell.defense.title, []).append(finished(cell))
    for title, results in by_defense.items():
        tables = [tables_of(r.records, r.draws) for r in results]
        whole = {name: pa.concat_tables([t[name] for t in tables]).unify_dictionaries() for name in tables[0]}
        lines = [r.line for r in results]
        images = {r.line["key"]: CellImages.of(r.adversarial) for r in results}
        store._write_part(part_name(title, lines), lines, whole, images)
    _about(store, board)


def _about(store: Store, board) -> None:
    lines = (json.dumps(cell.columns(), sort_keys=True) + "\n" for cell in board.cells())
    (store.folder / "plan.jsonl").write_text("".join(lines))
    update_manifest(store, board.manifest_facts())


def measured(*words: object) -> Taken:
    """Run a command of purebench, measured from outside."""
    return taken(sys.executable, "-m", "bench", *words, cwd=Path.cwd(), codes=(0, 1))


def grows_faster(rows: dict[str, list[Taken]], sizes: list[int]) -> list[str]:
    """Return the commands whose processor time a cell grows between the last two sizes, where start-up is little."""
    factor = SLACK * sizes[-1] / sizes[-2]
    return [name for name, took in rows.items() if took[-1].processor > factor * took[-2].processor]


def store_cells(folder: Path, cells) -> list[str]:
    """Store cells one by one; return the milliseconds of each at the start and at the end."""
    store, times = Store(folder), []
    for cell in cells:
        made, begin = finished(cell), time.perf_counter()
        with store.lock(cell.key):
            store.cell_record(cell.key)
            store.save(made)
        times.append(1000 * (time.perf_counter() - begin))
    tenth = len(times) // 10
    return [f"{sum(of) / tenth:.1f} ms" for of in (times[:tenth], times[-tenth:])]


def main(scratch: Path, sizes: list[int]) -> int:
    """Print a table of all sizes; return 1 where a command takes more than in proportion."""
    rows: dict[str, list[Taken]] = {}
    for size in sizes:
        folder = scratch / str(size)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        file, out = board_of(folder, size), folder / "all"
        board = load_board(file)
        cells = board.cells()
        halves = [folder / "first", folder / "second"]
        fill(out, board, cells)
        for half, at in zip(halves, (slice(0, size // 2), slice(size // 2, size)), strict=True):
            fill(half, board, cells[at])
        made = {
            "`plan`": measured("plan", file, "--out", folder / "none"),
            "`status`": measured("status", file, "--out", out),
            "`run`, all finished": measured("run", file, "--out", out),
            "`table`": measured("table", out),
            "`merge` of two halves": measured("merge", *halves, "--out", folder / "merged"),
        }
        for name, took in made.items():
            rows.setdefault(name, []).append(took)
            print(size, name, took, flush=True)
    print("| |" + "".join(f" {size:,} cells |" for size in sizes))
    print("|---|" + "---|" * len(sizes))
    for name, row in rows.items():
        print(f"| {name} |" + "".join(f" {took.processor:.1f} s, {took.peak:,.0f} MiB |" for took in row))
    faster = grows_faster(rows, sizes) if len(sizes) > 1 else []
    folder = scratch / "unmerged"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    file = board_of(folder, UNMERGED)
    board = load_board(file)
    first, last = store_cells(folder / "out", board.cells())
    _about(Store(folder / "out"), board)
    print(f"storing a cell: {first} at first, {last} after {UNMERGED:,}")
    print(f"status of {UNMERGED:,} unmerged parts:", measured("status", file, "--out", folder / "out"))
    print(f"run, which merges {UNMERGED:,} parts:", measured("run", file, "--out", folder / "out"))
    print("more than in proportion:", ", ".join(faster) or "none")
    return int(bool(faster))


if __name__ == "__main__":
    arguments = sys.argv[1:]
    with tempfile.TemporaryDirectory() as temporary:
        folder, sizes = Path(arguments[0] if arguments else temporary), [int(size) for size in arguments[1:]]
        sys.exit(main(folder, sizes or list(SIZES)))
