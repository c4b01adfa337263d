"""What a Ray cluster adds to a cell beside the local pool: cells that do nothing and are not stored.

    python tests/benchmarks/bench_ray.py [--cells 10000] [--workers 2]

Both pools have the same scheduler and the same workers; the cluster is one of a single node on this machine. Printed
per pool: seconds from the first cell to the last, and milliseconds a cell; then their difference a cell.
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
    """Time both pools, and print the difference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args(words)
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # of the node
    check_ray()  # before Ray is imported
    from ray.cluster_utils import Cluster

    node = {"num_cpus": arguments.workers, "object_store_memory": 100_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            plan = plan_of(arguments.cells, Path(scratch))
            took = {name: seconds(plan, arguments.workers, on_ray=name == "Ray") for name in ("local", "Ray")}
    finally:
        cluster.shutdown()
    for name, wall in took.items():
        print(f"{name}: {arguments.cells} cells in {wall:.1f} s, {1000 * wall / arguments.cells:.2f} ms a cell")
    print(f"Ray adds {1000 * (took['Ray'] - took['local']) / arguments.cells:.2f} ms a cell")
    return 0


if __name__ == "__main__":
    import bench_ray  # workers import this file by its name

    sys.exit(bench_ray.main())
