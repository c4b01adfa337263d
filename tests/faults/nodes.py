"""A Ray cluster on this machine, for faults of runs on it: a head without workers, and nodes with one worker each."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from bench.execution.workers.cluster.connect import check_ray

_NODE = {"num_cpus": 1, "memory": 3 << 30, "object_store_memory": 100_000_000}


class Nodes:
    """The cluster, with two nodes beside its head.

    Args:
        data: the nodes' folder of data sets.

    Attributes:
        address: HOST:PORT of its head.
        added: its nodes, as Ray has them.
    """

    def __init__(self, data: Path):
        check_ray()  # before Ray is imported
        from ray.cluster_utils import Cluster

        self.data, self.added = data, list[Any]()
        head = {**_NODE, "num_cpus": 0, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address: str = self._cluster.address
        for _ in range(2):
            self.add()

    def add(self, *, num_cpus: int = 1, num_gpus: int = 0, **variables: str) -> Any:
        """Start a node, with environment variables of its own; cells take half a second there, see `faults.attacks`."""
        variables = {"FAULTS_SECONDS": "0.5", "PUREBENCH_DATA": str(self.data)} | variables
        has = _NODE | {"num_cpus": num_cpus, "num_gpus": num_gpus}
        node = self._cluster.add_node(**has, env_vars=variables)
        self.added.append(node)
        return node

    def remove(self, node: Any) -> None:
        """End a node."""
        self.added.remove(node)
        self._cluster.remove_node(node)

    def mend(self) -> None:
        """Start as many nodes as have died."""
        for node in [node for node in self.added if node.dead_processes()]:
            self.remove(node)
            self.add()

    def close(self) -> None:
        """End all of it."""
        self._cluster.shutdown()


def processes() -> set[int]:
    """The processes that workers on nodes run in: those below a raylet that are no worker of Ray's own."""
    raylets = [p for p in psutil.process_iter(["name"]) if p.info["name"] == "raylet"]
    found = set()
    for raylet in raylets:
        try:
            for below in raylet.children(recursive=True):
                if "multiprocessing" in " ".join(below.cmdline()):
                    found.add(below.pid)
        except psutil.Error:
            continue
    return found


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
