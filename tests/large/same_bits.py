"""Quickstart's board, or another, on one machine, on one and three nodes of a Ray cluster, and as three shards merged.

Not collected by pytest. `python tests/large/same_bits.py [FOLDER] [BOARD]` runs each (folder: a temporary one), and
fails where records, draws, images or tables differ in a bit, times apart.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
sys.path.insert(0, str(Path(__file__).parents[1]))

from boards import ROOT
from faults.sameness import same

SHARDS = 3
NODE = {"num_cpus": 1, "memory": 3 << 30, "object_store_memory": 100_000_000}


def run(*words: object) -> None:
    """Run a command of purebench."""
    command = [sys.executable, "-m", "bench", *map(str, words)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def on_nodes(board: str, out: Path, count: int) -> None:
    """Run a board on a Ray cluster of some nodes with one worker each."""
    from bench.execution.workers.cluster.connect import check_ray

    check_ray()  # before Ray is imported
    from ray.cluster_utils import Cluster

    head = NODE | {"num_cpus": 0, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(count):
            cluster.add_node(**NODE)
        run("run", board, "--out", out, "--ray", cluster.address, "--quiet")
    finally:
        cluster.shutdown()


def in_shards(board: str, out: Path) -> None:
    """Run the shards of a board, and merge them."""
    parts = [out.with_name(f"shard-{number}") for number in range(1, SHARDS + 1)]
    for number, part in enumerate(parts, 1):
        run("run", board, "--out", part, "--shard", f"{number}/{SHARDS}", "--quiet")
    run("merge", *parts, "--out", out)


def main(folder: Path, board: str) -> None:
    """Run the board in all ways."""
    ways = {
        "one process": lambda out: run("run", board, "--out", out, "--workers", 0, "--quiet"),
        "two workers": lambda out: run("run", board, "--out", out, "--workers", 2, "--quiet"),
        "one node": lambda out: on_nodes(board, out, 1),
        "three nodes": lambda out: on_nodes(board, out, 3),
        f"{SHARDS} shards, merged": lambda out: in_shards(board, out),
    }
    first = None
    for number, (way, go) in enumerate(ways.items()):
        out, begin = folder / f"way-{number}" / "out", time.monotonic()
        shutil.rmtree(out.parent, ignore_errors=True)
        go(out)
        print(f"{way}: {time.monotonic() - begin:.0f} s", end="", flush=True)
        if first is not None:
            same(first, out)
        print("" if first is None else ", the same bits", flush=True)
        first = first or out


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(*(Path(f) for f in sys.argv[1:2] or [scratch]), (sys.argv[2:3] or ["quickstart"])[0])
