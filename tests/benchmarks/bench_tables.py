"""What the tables of large results folders take: seconds after imports, and the most memory the process held.

Run: python tests/benchmarks/bench_tables.py [--only records draws compact board] [--scale F] [--repeats N]
    [--folder DIR]

Folders are made by the real store, with random counts and logits, as compacted by `purebench run` (a part per defense):
1,000,000 record rows, of 4 deterministic defenses x 25 rows (clean, noise, 23 attacks) x 10,000 images of ten classes
in blocks of 100, which are 10,000 cells with one draw per image; 20,250,000 draws rows, of 4 stochastic defenses x 25
rows x 2,500 images x (65 held-out + 16 selection) draws; and a board of 200 deterministic defenses x 30 rows x 1,000
images. Then, each in a process of its own, all table files of the first two are written, as `purebench table` does when
they are out of date, and `leaderboard` and the pages of a site are made of the board: the time from the end of the
imports, and the peak of resident memory. The folder of records is also compacted: from a part per cell, and once more
when one cell has been run again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

EPS, BLOCK, CLASSES = 8 / 255, 100, 10
HELD, SEL = 65, 16


@dataclass(frozen=True)
class Shape:
    """How large a folder is: defenses x rows x images."""

    images: int
    stochastic: bool
    defenses: int = 4
    rows: int = 25

    @property
    def draws(self) -> tuple[int, int]:
        """(held-out, selection) draws."""
        return (HELD, SEL) if self.stochastic else (1, 0)

    def cells(self, defense: int) -> Iterator[dict[str, Any]]:
        """The planned cells of a defense, in table order."""
        for row in range(self.rows):
            attack = ("none", "uniform")[row] if row < 2 else f"library:attack-{row}"
            for block in range(0, self.images, BLOCK):
                yield _cell(f"defense-{defense}", attack, block, self)


def _cell(defense: str, attack: str, block: int, shape: Shape) -> dict[str, Any]:
    from hashlib import sha256

    held, sel = shape.draws
    key = sha256(f"{defense} {attack} {block}".encode()).hexdigest()[:20]
    return {
        "key": key, "defense": defense, "attack": attack, "view": "deployed" if len(attack) < 8 else "exact",
        "gradient": "exact", "eot": 1, "runs": None, "dataset": "cifar10", "split": "test", "indices": "all",
        "block": block, "images": min(BLOCK, shape.images - block), "norm": "Linf", "eps": "8/255", "targets": "none",
        "knowledge": "white-box", "seed": 0, "draws": held, "selection": sel, "stochastic": shape.stochastic,
        "minimisation": False, "budget": "full", "warnings": [],
    }  # fmt: skip


def _line(cell: dict[str, Any]) -> dict[str, Any]:
    """The line of a finished cell, as long as those of real boards."""
    weights = {"network": "0" * 64, "classifier": "1" * 64}
    parameters = {f"parameter{i}": f"{i}/1000" for i in range(9)}
    identity = {
        "attack": [cell["attack"], {"steps": "100", "n_restarts": "5"}, "library 1.2.3"], "schema": 1, "seed": 0,
        "data": ["cifar10", "test", "md5-c99cafc15224-split1", "0c107320ad64414b", cell["block"], cell["images"]],
        "defense": {"name": cell["defense"], "version": "1", "parameters": parameters, "weights": weights},
        "threat": ["Linf", "8/255", "none"], "verdict": [cell["draws"], cell["selection"]],
        "view": ["exact", 1, None, "logits"],
    }  # fmt: skip
    costs = {"seconds_attack": 3.6934999116, "seconds_verdict": 4.1061843430, "forwards": 100000, "backwards": 50000}
    costs |= {"queries": 100000, "forwards_verdict": 10000, "backwards_verdict": 0}
    return cell | costs | {"status": "ok", "error": None, "identity": identity, "run": "be2ee0c1acb1"}


def make(folder: Path, shape: Shape, *, merged: bool = True) -> None:
    """Write a folder: a part per defense, or when not merged one per cell."""
    from bench.store.arrays import CellImages
    from bench.store.folder import CellResult, Store

    store = Store(folder)
    plan = []
    for defense in range(shape.defenses):
        cells = list(shape.cells(defense))
        plan += cells
        records, draws = _columns(cells, shape, np.random.default_rng(defense))
        lines = [_line(cell) for cell in cells]
        if merged:
            images = {cell["key"]: CellImages.of(np.zeros((1, 1), np.float32)) for cell in cells}
            name = f"all-{cells[0]['defense']}-00000000"
            store._write_part(name, lines, {"records.parquet": records, "draws.parquet": draws}, images)
        else:
            per = (sum(shape.draws), np.zeros((BLOCK, 3, 2, 2), np.float32))
            for i, line in enumerate(lines):
                rows = records.slice(i * BLOCK, BLOCK), draws.slice(i * BLOCK * per[0], BLOCK * per[0])
                parts = [{n: t[n] for n in t.column_names} for t in rows]
                store.save(CellResult(line, parts[0], parts[1], per[1]))
    (folder / "plan.jsonl").write_text("".join(json.dumps(c, sort_keys=True) + "\n" for c in plan))


def _columns(cells: list[dict[str, Any]], shape: Shape, rng: np.random.Generator) -> tuple[Any, Any]:
    """Records and draws of a defense, as the executor writes them."""
    import pyarrow as pa

    held, sel = shape.draws
    count, n = held + sel, len(cells) * BLOCK
    keys = [c["key"] for c in cells]
    index = (np.array([c["block"] for c in cells])[:, None] + np.arange(BLOCK)).astype(np.int32)
    label = (index * 7 % CLASSES).astype(np.int16)
    hard = np.array([{"none": 0.05, "uniform": 0.06}.get(c["attack"], 0.4) for c in cells])[:, None]
    wrong = np.clip(hard + rng.normal(0, 0.2, index.shape), 0, 1)
    right = rng.random((len(cells), count, BLOCK)) >= (wrong if shape.stochastic else wrong > rng.random())[:, None]
    pred = np.where(right, label[:, None], (label[:, None] + 1) % CLASSES).astype(np.int16)
    logits = -np.abs(rng.standard_normal(n * count * CLASSES, np.float32)).astype(np.float16)
    logits[np.arange(n * count) * CLASSES + pred.ravel()] = 0
    is_held = np.arange(count) >= sel
    chosen = ~is_held if sel else is_held
    flat, whole = index.ravel(), np.ones(n, bool)
    number = {"label": label.ravel(), "target": np.full(n, -1, np.int16)}
    number |= {"correct": right[:, is_held].sum(1).ravel().astype(np.int32), "draws": np.full(n, held, np.int32)}
    number |= {"correct_sel": right[:, chosen].sum(1).ravel().astype(np.int32)}
    number |= {"draws_sel": np.full(n, chosen.sum(), np.int32)}
    number |= {name: np.zeros(n, np.int32) for name in ("hits", "hits_sel", "rejected")}
    number |= {"margin": rng.normal(0, 1, n).astype(np.float32)}
    number |= {x: rng.uniform(0.01, EPS, n).astype(np.float32) for x in ("linf", "l2", "l1", "l0")}
    number |= {"in_box": whole, "in_ball": whole, "finite": whole, "beyond": ~whole}
    number |= {x: np.full(n, 1000.0) for x in ("queries", "forwards", "backwards")}
    number |= {"seconds": np.repeat(rng.random(len(cells)), BLOCK)}
    codes = pa.array(np.repeat(np.arange(len(cells), dtype=np.int32), BLOCK))
    named = pa.DictionaryArray.from_arrays(codes, pa.array(keys)).cast(pa.string())
    sha = pa.array([f"{i * 2654435761 % 2**61:016x}" for i in range(shape.images)]).take(pa.array(flat))
    texts = {"status": pa.array(["ok"]).take(pa.array(np.zeros(n, np.int32)))}
    texts |= {"error": pa.array([""]).take(pa.array(np.zeros(n, np.int32)))}
    records = pa.table({"cell": named, "index": flat, "sha": sha, **number, **texts})
    codes = pa.array(np.repeat(np.arange(len(cells), dtype=np.int32), BLOCK * count))
    draws = {
        "cell": pa.DictionaryArray.from_arrays(codes, pa.array(keys)),
        "index": np.repeat(index, count, axis=0).ravel(),
        "draw": np.tile(np.repeat(np.arange(count, dtype=np.int16), BLOCK), len(cells)),
        "held_out": np.tile(np.repeat(is_held, BLOCK), len(cells)),
        "pred": pred.ravel(),
        "margin": rng.standard_normal(n * count, np.float32),
        "rejected": np.zeros(n * count, bool),
        "logits": pa.FixedSizeListArray.from_arrays(pa.array(logits), CLASSES),
    }
    return records, pa.table(draws)


_MEASURED = """
import sys, time
from pathlib import Path
import numpy, pandas, pyarrow.compute, pyarrow.pandas_compat, pyarrow.parquet, safetensors.numpy, filelock, jinja2
from bench.analysis import draws, records, results, rows, scores, summary
from bench.report import files, table, tables
from bench.stats import proportions, worst_case
from bench.store import folder, manifest, reader

def held():
    status = Path("/proc/self/status").read_text()  # ru_maxrss would count the parent too
    return int(status.split("VmHWM:")[1].split()[0])

before = held()
begin, cpu = time.perf_counter(), time.process_time()
{work}
print(time.perf_counter() - begin, time.process_time() - cpu, held() / 2**20, before / 2**20)
"""


class Cost(NamedTuple):
    """What some lines took: seconds, seconds of the processor (all threads), and GiB of memory."""

    seconds: float
    processor: float
    peak: float
    after_imports: float

    def __str__(self) -> str:
        held = f"peak {self.peak:.2f} GiB ({self.after_imports:.2f} GiB after the imports)"
        return f"{self.seconds:.2f} s ({self.processor:.2f} s of the processor), {held}"


def measured(work: str, folder: Path) -> Cost:
    """Time and memory of some lines of Python, in a process of their own."""
    code = _MEASURED.format(work=work)
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    return Cost(*map(float, done.stdout.split()))


TABLES = "tables.write_tables(Path(sys.argv[1]))"
_COMPACT = """
import json
plan = [json.loads(line) for line in (Path(sys.argv[1]) / "plan.jsonl").read_text().splitlines()]
folder.Store(Path(sys.argv[1])).compact(plan)
"""
LEADERBOARD = """
import bench
bench.leaderboard(sys.argv[1])
"""
PAGES = """
import tempfile
sys.path.insert(0, "tests/helpers")
from site_pages import write_board_pages
with tempfile.TemporaryDirectory() as scratch:
    write_board_pages(Path(sys.argv[1]), Path(scratch) / "site")
"""
_CASES = ("records", "draws", "compact", "board")


def main() -> None:
    """Make the folders and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of images (default: 1)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where folders are made, and kept (default: a scratch folder)")
    parser.add_argument("--only", choices=_CASES, nargs="+")
    arguments = parser.parse_args()
    asked = arguments.only or _CASES
    images = [max(1, round(n * arguments.scale / BLOCK)) * BLOCK for n in (10_000, 2_500, 1_000)]
    shapes = {"records": Shape(images[0], False), "draws": Shape(images[1], True), "compact": Shape(images[0], False)}
    shapes["board"] = Shape(images[2], False, defenses=200, rows=30)
    with tempfile.TemporaryDirectory() as scratch:
        root = arguments.folder or Path(scratch)
        for name in asked:
            _case(name, shapes[name], root / f"{name}-{shapes[name].images}", arguments.repeats)


def _case(name: str, shape: Shape, folder: Path, repeats: int) -> None:
    begin = time.perf_counter()
    if not (folder / "plan.jsonl").is_file():
        make(folder, shape, merged=name != "compact")
    rows = shape.defenses * shape.rows * shape.images
    print(f"{name}: {rows:,} records, {rows * sum(shape.draws):,} draws, {rows // BLOCK:,} cells", end=" ")
    print(f"(made in {time.perf_counter() - begin:.0f} s)", flush=True)
    if name == "compact":
        part = next((folder / "parts").iterdir())
        aside = shutil.copytree(part, folder / part.name)
        print(f"  compact: {measured(_COMPACT, folder)}", flush=True)
        aside.rename(part)  # as one cell that was run again
        print(f"  compact, one more cell: {measured(_COMPACT, folder)}", flush=True)
    if name == "board":
        print(f"  leaderboard: {measured(LEADERBOARD, folder)}", flush=True)
        print(f"  pages: {measured(PAGES, folder)}", flush=True)
        return
    for _ in range(repeats):
        print(f"  tables: {measured(TABLES, folder)}", flush=True)


if __name__ == "__main__":
    main()
