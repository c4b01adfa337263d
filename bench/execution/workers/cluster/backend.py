"""Actors of a Ray cluster as workers of a pool."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

from bench.execution.sources import Sources
from bench.execution.workers.backend import Ending
from bench.execution.workers.cluster.actor import Refusal, Report, WorkerActor
from bench.execution.workers.cluster.nodes import NodeRequest
from bench.execution.workers.messages import Certified, Computed, Died, Failed, Message, WorkerFailed
from bench.execution.workers.process import ignore_interrupts
from bench.execution.workers.tasks import Task
from bench.store.environment import RunRecord
from defenses.utils.errors import UserError
from defenses.utils.hints import warn

_REPORT_SECONDS = 1.0  # between two reports of an actor that has no message
_STOP_SECONDS = 10.0  # at most: time for an actor to end its process
_CALLS = 4  # of an actor at once: a report, a task, a stop
_NODE = "ray.io/node-id"  # the label that every node has


def last_line(error: BaseException) -> str:
    """Return the last line of an error of Ray, which ends with its cause."""
    return ([line.strip() for line in str(error).splitlines() if line.strip()] or ["no reason told"])[-1]


@dataclass
class _Actor:
    """Actor in the driver: its handle, the run's entry of its node, its last task, and the bytes that it told last."""

    handle: Any
    run: str = ""
    task: Task | None = None
    memory: int = 0

    def place(self, message: Message, sources: Sources) -> None:
        """Give the result of its task the run's entry, and what it depends on as this machine has it."""
        if self.task is None:
            return
        match message:
            case Computed(result=result):
                result.line["run"] = self.run
                sources.move_here(self.task.cell, result.line)
            case Certified(certificate=certificate):
                sources.move_here(self.task.cell, certificate)


class RayActors:
    """Actors, each with a process on its node: a `bench.execution.workers.backend.Backend`.

    Args:
        request: what nodes are asked.
        resources: of each actor, as options of `ray.remote`.
        run_of: returns the id of the run's entry for a machine.
    """

    def __init__(self, request: NodeRequest, resources: Mapping[str, float], run_of: Callable[[RunRecord], str]):
        import ray

        self._ray: Any = ray
        options: dict[str, Any] = {
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": _CALLS,
            "scheduling_strategy": "SPREAD",
        }
        self._class, self._options = self._ray.remote(WorkerActor), options | dict(resources)
        self._request, self._run_of = ray.put(request), run_of
        self._numbers, self._sources = count(), Sources()
        self._actors: dict[int, _Actor] = {}
        self._left_out: dict[str, UserError] = {}  # nodes that joined late and cannot run the cells, by id, and why
        self._reports: dict[Any, int] = {}  # that are asked for, by their reference
        self._sent: dict[Any, int] = {}  # tasks of which it is not known that they have arrived

    def start(self) -> int:
        """Ask Ray for an actor, which waits where there is no room."""
        number = next(self._numbers)
        self._place(number)
        return number

    def _place(self, number: int) -> None:
        """Ask Ray for the actor of a worker, on a node that is not left out."""
        others = {"label_selector": {_NODE: f"!in({', '.join(self._left_out)})"}} if self._left_out else {}
        self._actors[number] = _Actor(self._class.options(**self._options, **others).remote(self._request))
        self._ask(number)

    def _leave_out(self, number: int, refusal: Refusal) -> list[Message]:
        """Start a worker again, on another node than the one that refused it; if there is no other, it fails."""
        if refusal.node not in self._left_out:
            self._left_out[refusal.node] = refusal.error
            if not self._has_others():
                return [Failed(refusal.error)]
            warn(f"{refusal.error}; the node is left out")
        self._ray.kill(self._actors[number].handle)
        self._place(number)
        return []

    def _has_others(self) -> bool:
        """Return True if a worker fits on a node that is not left out."""
        names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
        needs = {there: self._options[name] for name, there in names.items()}
        others = [node for node in self._ray.nodes() if node["Alive"] and node["NodeID"] not in self._left_out]
        return any(all(node["Resources"].get(k, 0) >= n for k, n in needs.items()) for node in others)

    def _ask(self, number: int) -> None:
        self._reports[self._actors[number].handle.report.remote(_REPORT_SECONDS)] = number

    def send(self, worker: int, task: Task) -> None:
        """Give a task to an actor."""
        actor = self._actors[worker]
        actor.task = task
        self._sent[actor.handle.send.remote(task)] = worker

    def receive(self, seconds: float) -> Iterator[tuple[int, Message]]:
        """Wait for reports, and yield their messages."""
        yield from self._refusals()
        yield from self._without_nodes()
        if not self._ray.wait([*self._reports], timeout=seconds)[0]:
            return
        ready, _ = self._ray.wait([*self._reports], num_returns=len(self._reports), timeout=0)
        for reference in ready:
            number = self._reports.pop(reference)
            if number in self._actors:
                yield from ((number, message) for message in self._messages(number, reference))

    def _without_nodes(self) -> Iterator[tuple[int, Message]]:
        """Yield a failure for each worker that waits for a node, when all that are left have been left out."""
        waiting = [number for number, actor in self._actors.items() if not actor.run]
        if waiting and self._left_out and not self._has_others():
            why = list(self._left_out.values())[-1]
            yield from ((number, Failed(why)) for number in waiting)

    def _refusals(self) -> Iterator[tuple[int, Message]]:
        """Yield a message for each task that an actor cannot take; the loss of an actor is told by its report."""
        arrived, _ = self._ray.wait([*self._sent], num_returns=len(self._sent), timeout=0) if self._sent else ([], [])
        for reference in arrived:
            number = self._sent.pop(reference)
            try:
                self._ray.get(reference)
            except self._ray.exceptions.RayTaskError as error:
                text = f"a worker on the Ray cluster cannot take a task: {last_line(error)}"
                yield number, Failed(WorkerFailed(text))
            except self._ray.exceptions.RayError:
                continue

    def _messages(self, number: int, reference: object) -> list[Message]:
        """Return the messages of a report, and ask for the next one; the loss of an actor is one too."""
        actor = self._actors[number]
        try:
            report: Report = self._ray.get(reference)
        except self._ray.exceptions.RayError:
            return [Died()]
        if report.refusal is not None:
            return self._leave_out(number, report.refusal)
        actor.run, actor.memory = actor.run or self._run_of(report.machine), report.memory
        if not any(isinstance(message, Died | Failed) for message in report.messages):
            self._ask(number)
        for message in report.messages:
            actor.place(message, self._sources)
        return report.messages

    def memory(self, worker: int) -> int:
        """Return the bytes that a process held at its last report."""
        return self._actors[worker].memory

    def stop(self, worker: int, *, trace: bool) -> Ending:
        """End a process and its actor."""
        actor = self._actors.pop(worker)
        try:
            ending: Ending = self._ray.get(actor.handle.stop.remote(trace), timeout=_STOP_SECONDS)
        except self._ray.exceptions.RayError:
            ending = Ending("its node or its Ray actor was lost", None, lost=True)
        self._ray.kill(actor.handle)
        return ending

    def close(self) -> None:
        """End all actors, and wait for the end of their processes."""
        with ignore_interrupts():
            begun = [actor for actor in self._actors.values() if actor.run]
            endings = [actor.handle.stop.remote(False) for actor in begun]
            if endings:
                self._ray.wait(endings, num_returns=len(endings), timeout=_STOP_SECONDS)
            for actor in self._actors.values():
                self._ray.kill(actor.handle)
            self._actors.clear()


@contextmanager
def ray_actors(
    request: NodeRequest, resources: Mapping[str, float], run_of: Callable[[RunRecord], str]
) -> Iterator[RayActors]:
    """Yield a backend of actors, which end with the context; `RayActors` has the arguments."""
    backend = RayActors(request, resources, run_of)
    try:
        yield backend
    finally:
        backend.close()
