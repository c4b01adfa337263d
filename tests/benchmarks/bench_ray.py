"""What a Ray cluster adds to a cell beside the local pool: cells that do nothing and are not stored.

    python tests/benchmarks/bench_ray.py [--cells 10000] [--workers 2] [--pairs 3]

Both pools have the same scheduler and the same workers; the cluster is one of a single node on this machine. Printed
per pair of runs: seconds from the first cell to the last of each pool, and their difference a cell. Exit code 1: the
median difference is above 50 ms, or Ray takes more than 60 s for 10,000 cells.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median

from bench.board.from_names import board_of_names
from bench.execution.finish_cell import CellReport
from bench.execution.options import Options, RayOptions
from bench.execution.plan import RunPlan, plan_run
from bench.execution.resume import Resumable
from bench.execution.workers.cluster.connect import check_ray, connected
from bench.execution.workers.limits import Limits
from bench.execution.workers.messages import Checked, Finished, TaskMessage
from bench.execution.workers.pool import PoolCallbacks, WorkerPool
from bench.execution.workers.process import local_processes, warm_up
from bench.execution.workers.session import Session, WorkerSettings
from bench.execution.workers.tasks import CellTask, LoadTask, Task
from bench.spec.cell import Cell
from bench.store.folder import Store

ADDED, WHOLE = 50, 60  # milliseconds a cell beside the local pool; seconds for 10,000 cells


class NoCell(CellTask):
    """A task that does nothing."""

    def run(self, session: Session) -> TaskMessage:
        """Answer at once."""
        return Finished(self.name, CellReport(self.cell.key, "ok", 0.0, None))


class NoLoad(LoadTask):
    """A check that checks nothing."""

    def run(self, session: Session) -> TaskMessage:
        """Answer at once."""
        return Checked(self.name, 0.0, softmax=False)


class Pool(WorkerPool):
    """A pool of tasks that do nothing."""

    def _cell_task(self, cell: Cell, *, wait: bool) -> Task:
        return NoCell(cell)


def plan_of(cells: int, folder: Path) -> RunPlan:
    """Return a plan of so many cells, equal but for their blocks."""
    board = board_of_names(
        defenses=["undefended"], dataset="digits", attacks=["autoattack:apgd-ce"], eps="1/5", indices="first-1"
    )
    plan = plan_run(board, board.cells(), Resumable({}), folder, Options(quiet=True))
    first = plan.pending[0]
    pending = [replace(first, data=replace(first.data, start=i, stop=i + 1)) for i in range(cells)]
    return replace(plan, pending=pending)


def seconds(plan: RunPlan, workers: int, *, on_ray: bool) -> float:
    """Return the seconds that a pool takes for all cells of a plan, from the first one."""
    begin = 0.0
    reports: list[CellReport] = []

    def started(*_: object) -> None:
        nonlocal begin
        begin = time.perf_counter()

    callbacks = PoolCallbacks("run", started, reports.append, Limits(), lambda _: 1.0)
    settings = WorkerSettings(plan.images, plan.threads, plan.folder, plan.options, "run")
    with ExitStack() as stack:
        if on_ray:
            cluster = stack.enter_context(connected(plan, RayOptions("auto", workers)))
            backend = stack.enter_context(cluster.actors(settings, lambda _: "run"))
        else:
            warm_up(plan.threads)
            backend = stack.enter_context(local_processes(settings))
        pool = Pool(backend, Store(plan.folder), callbacks, plan.pending, {}, ())
        pool._ready = [NoLoad(task.cell) for task in pool._ready]
        pool.run(workers)
        took = time.perf_counter() - begin
    assert len(reports) == len(plan.pending)
    return took


def main(words: Sequence[str] | None = None) -> int:
    """Time both pools in turn, and print the differences."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=3)
    arguments = parser.parse_args(words)
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # of the node
    check_ray()  # before Ray is imported
    from ray.cluster_utils import Cluster

    node = {"num_cpus": arguments.workers, "object_store_memory": 100_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            plan = plan_of(arguments.cells, Path(scratch))
            added, whole = [], []
            for _ in range(arguments.pairs):
                local, ray = (seconds(plan, arguments.workers, on_ray=on_ray) for on_ray in (False, True))
                added.append(1000 * (ray - local) / arguments.cells)
                whole.append(ray * 10_000 / arguments.cells)
                print(f"{arguments.cells} cells: local {local:.1f} s, Ray {ray:.1f} s, {added[-1]:.2f} ms a cell more")
    finally:
        cluster.shutdown()
    print(f"Ray adds {median(added):.2f} ms a cell, median of {arguments.pairs} pairs")
    return int(median(added) > ADDED or median(whole) > WHOLE)


if __name__ == "__main__":
    import bench_ray  # workers import this file by its name

    sys.exit(bench_ray.main())
