"""Connect to a Ray cluster, and look at its nodes before anything is written."""

from __future__ import annotations

import math
import os
import re
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.execution.options import RayOptions
from bench.execution.plan import RunPlan
from bench.execution.workers.cluster.backend import RayActors, last_line, ray_actors
from bench.execution.workers.cluster.files import files_of_run, write_package
from bench.execution.workers.cluster.nodes import NodeRequest, answer, examine, request_of
from bench.execution.workers.limits import GIB, least_memory
from bench.execution.workers.session import WorkerSettings
from bench.store.environment import RunRecord
from defenses.utils.errors import UserError
from defenses.utils.hints import note

_MISSING = 'runs on a Ray cluster need Ray: pip install "purebench[ray]"'
_REMEDY = "start it with `ray start --head`"
_FRAME, _SETTINGS = 9, b"\x04"  # bytes of the head of a frame of HTTP/2, in which gRPC speaks, and a kind of frame
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + _SETTINGS + bytes(5)
_REACH_SECONDS = 5.0  # at most, to reach the address
_ANSWER_SECONDS = 300.0  # at most, until a node answers, which keeps the run's package first
_DATA_SECONDS = 30.0  # after which the nodes are named whose data are still hashed: that takes as long as it takes
_INTACT = {  # Ray sends the package as it is
    "RAY_RUNTIME_ENV_IGNORE_GITIGNORE": "1",
    "RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES": "",
}


@dataclass(frozen=True)
class Cluster:
    """Ray cluster to which this process is connected; all of its nodes can run the cells.

    Args:
        workers: number of actors of the run.
        memory: GiB that the process of each may hold.
        resources: of each actor, as options of `ray.remote`.
        request: what nodes are asked.
        machines: descriptions of the nodes.
    """

    workers: int
    memory: float
    resources: Mapping[str, float]
    request: NodeRequest
    machines: Sequence[RunRecord]

    def actors(self, settings: WorkerSettings, run_of: Callable[[RunRecord], str]) -> AbstractContextManager[RayActors]:
        """Return the workers of a run, as a context.

        Args:
            settings: of the run.
            run_of: returns the id of the run's entry for a machine.
        """
        for machine in self.machines:
            run_of(machine)
        return ray_actors(replace(self.request, settings=_of_nodes(settings, self.resources)), self.resources, run_of)


def _of_nodes(settings: WorkerSettings, resources: Mapping[str, float]) -> WorkerSettings:
    """Return the settings of workers on nodes, without a folder; those that share a GPU count as workers."""
    sharing = _a_gpu(resources["num_gpus"]) if resources["num_gpus"] else 1
    return replace(settings, folder=None, options=replace(settings.options, workers=sharing, ray=None))


def check_ray() -> Any:
    """Return the module of Ray.

    Raises:
        UserError: it is not installed.
    """
    # Under `uv run` Ray would give workers the driver's project in place of the nodes' own environments.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # it prints those of actors that the pool has ended
    try:
        import ray
    except ImportError:
        raise UserError(_MISSING) from None
    return ray


@contextmanager
def connected(plan: RunPlan, chosen: RayOptions) -> Iterator[Cluster]:
    """Yield the cluster of a run, connected with the files that go to the nodes.

    Args:
        plan: of the run.
        chosen: address, number of workers, and share of a GPU.

    Raises:
        UserError: Ray is missing or out of reach, or no node has room for a worker.
    """
    ray = check_ray()
    if ray.is_initialized():
        raise UserError("this process is connected to Ray already; call ray.shutdown() first")
    address = _own_address() if chosen.address == "auto" else chosen.address
    _reach(address)
    with ExitStack() as stack:
        with tempfile.TemporaryDirectory(prefix="purebench-") as package:
            environment: dict[str, Any] = {}
            files, has_data = files_of_run(plan)
            if files:
                os.environ.update(_INTACT)
                write_package(files, Path(package))
                environment = {"working_dir": package}
            stack.enter_context(_joined(ray, address, environment))
        nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        workers, memory, resources, rooms = _room([node["Resources"] for node in nodes], plan, chosen)
        used = [node for node, room in zip(nodes, rooms, strict=True) if room]
        settings = WorkerSettings(plan.images, plan.threads, None, plan.options, "", memory)
        if ray.available_resources().get("CPU", 0) < plan.threads:
            note("all CPUs of the Ray cluster are in use; cells begin when there is room for a worker")
        request = request_of(_of_nodes(settings, resources), plan.pending[0].data.revision, has_data=has_data)
        yield Cluster(workers, memory, resources, request, _examined(used, request))


@contextmanager
def _joined(ray: Any, address: str, environment: Mapping[str, Any]) -> Iterator[None]:
    """Connect this process to a cluster; SIGTERM is as Ctrl-C meanwhile, and Ray prints nothing.

    Raises:
        UserError: Ray refuses.
    """
    before, worker = signal.getsignal(signal.SIGTERM), ray._private.worker
    ours = before is not None and threading.current_thread() is threading.main_thread()  # None: set outside of Python
    prints = getattr(worker, "_worker_logs_enabled", True)
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        try:
            ray.init(address=address, runtime_env=environment, **quiet)
        except (ray.exceptions.RayError, RuntimeError, ValueError, OSError) as error:
            raise UserError(f"cannot connect to Ray at {address}: {_line(str(error))}") from None
        worker._worker_logs_enabled = False  # of lost nodes it prints the last lines of their logs
        if ours:  # where Ray has set a handler that leaves a traceback
            signal.signal(signal.SIGTERM, signal.default_int_handler if before is signal.SIG_DFL else before)
        yield
    finally:
        ray.shutdown()
        worker._worker_logs_enabled = prints
        if ours:
            signal.signal(signal.SIGTERM, before)


def _own_address() -> str:
    """Return HOST:PORT of the cluster of this machine.

    Raises:
        UserError: there is none.
    """
    from ray._private.services import canonicalize_bootstrap_address_or_die  # as Ray's own commands

    try:
        return canonicalize_bootstrap_address_or_die("auto")
    except ConnectionError:
        raise UserError(f"no Ray cluster runs on this machine; {_REMEDY}, or name it as --ray HOST:PORT") from None


def _reach(address: str) -> None:
    """Refuse an address where no server of Ray's kind answers: Ray itself waits for minutes."""
    host, _, port = address.rpartition(":")
    encrypted = os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_SECONDS) as connection:
            connection.sendall(_HELLO)
            answers = encrypted or connection.recv(_FRAME)[3:4] == _SETTINGS
    except (OSError, UnicodeError) as error:  # the latter: the host cannot be a name
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot reach Ray at {address} ({reason}); {_REMEDY}") from None
    if not answers:
        raise UserError(f"what answers at {address} is not Ray; {_REMEDY}")


def _line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _a_gpu(gpus: float) -> int:
    """Return the number of workers that share a GPU, of which each takes a number or a part."""
    return max(1, int(1 / gpus))


def _room(
    nodes: Sequence[Mapping[str, float]], plan: RunPlan, chosen: RayOptions
) -> tuple[int, float, dict[str, float], list[int]]:
    """Return the number of workers, the GiB that each may hold, its resources, and how many fit on each node.

    Args:
        nodes: resources of each node, as Ray names them.
        plan: of the run.
        chosen: options of the run.
    """
    gpus = chosen.gpus if chosen.gpus is not None else float(plan.options.device != "cpu")
    on_gpus = [n.get("GPU", 0) // max(1, gpus) * _a_gpu(gpus) if gpus else math.inf for n in nodes]
    fits = [int(min(n["CPU"] // plan.threads, most)) for n, most in zip(nodes, on_gpus, strict=True)]
    sizes = [n.get("memory", 0) / GIB for n in nodes]
    memory = plan.options.memory or least_memory([s / fit for s, fit in zip(sizes, fits, strict=True) if fit])
    # A thousandth aside, as Ray rounds.
    rooms = [min(fit, int(1.001 * size / memory)) for fit, size in zip(fits, sizes, strict=True)]
    room = sum(rooms)
    if not room:
        needs = f"{plan.threads} CPUs" + (f", {gpus:g} GPUs" if gpus else "") + f" and {memory:.3g} GiB of memory"
        raise UserError(f"no node of the Ray cluster has the {needs} that a worker takes")
    if (chosen.workers or 0) > room:
        note(f"the Ray cluster has room for {room} of the {chosen.workers} workers")
    resources = {"num_cpus": plan.threads, "num_gpus": gpus, "memory": int(0.999 * memory * GIB)}
    return min(chosen.workers or room, room), memory, resources, rooms


def _examined(nodes: Sequence[Mapping[str, Any]], request: NodeRequest) -> list[RunRecord]:
    """Return descriptions of nodes.

    Args:
        nodes: of the cluster, as Ray describes them.
        request: what they are asked.

    Raises:
        UserError: a node lacks the data, or has another version.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    names = [f"node {node['NodeManagerAddress']} of the Ray cluster" for node in nodes]
    there = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]

    def asked(question: Callable[..., object], *arguments: object) -> list[Any]:
        light: Any = {"num_cpus": 0, "max_retries": 0}
        remote: Any = ray.remote(question)
        return [remote.options(scheduling_strategy=strategy, **light).remote(*arguments) for strategy in there]

    for where, reference in zip(names, asked(answer), strict=True):
        try:
            ray.get(reference, timeout=_ANSWER_SECONDS)
        except ray.exceptions.RayError as error:
            raise UserError(f"{where} cannot run purebench ({last_line(error)}); install it there") from None
    return _checked(dict(zip(asked(examine, ray.put(request)), names, strict=True)), ray)


def _checked(answers: Mapping[Any, str], ray: Any) -> list[RunRecord]:
    """Return descriptions of nodes, however long the check of their data takes; the first problem ends it.

    Args:
        answers: names of the nodes, by the reference of what `examine` returns.
        ray: the module.

    Raises:
        UserError: a node lacks the data, or has another version.
    """
    machines, left = dict[Any, RunRecord](), dict(answers)
    seconds: float | None = _DATA_SECONDS
    while left:
        ready, _ = ray.wait([*left], timeout=seconds)
        if not ready:
            note(f"still checking the data of {', '.join(left.values())}")
            seconds = None
        for reference in ready:
            where = left.pop(reference)
            try:
                machines[reference], problem = ray.get(reference)
            except ray.exceptions.RayError as error:
                raise UserError(f"{where} cannot check its data ({last_line(error)}); repeat the command") from None
            if problem:
                raise UserError(problem).within(where)
    return [machines[reference] for reference in answers]
