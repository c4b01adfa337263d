"""Actors of a Ray cluster as workers: each starts a process on its node, as the pool of one machine does.

The process keeps the data and the defense. The actor, which loads no torch, passes tasks and messages on, and the
process ends with it. So limits, tracebacks and the ends of workers are those of local processes.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from typing import NamedTuple

from bench.execution.workers.backend import Ending
from bench.execution.workers.cluster.nodes import NodeRequest, examine
from bench.execution.workers.messages import Failed, Message
from bench.execution.workers.process import local_processes
from bench.execution.workers.tasks import Task
from bench.store.environment import RunRecord
from defenses.utils.errors import UserError


class Refusal(NamedTuple):
    """Refusal by a node that cannot run the cells: its id, and the reason."""

    node: str
    error: UserError


class Report(NamedTuple):
    """Report of an actor: its node, new messages of its process, and the bytes of memory that this holds.

    Where the node cannot run the cells there is no process, but a refusal.
    """

    machine: RunRecord
    messages: list[Message]
    memory: int
    refusal: Refusal | None = None


class WorkerActor:
    """An actor; Ray calls its methods in threads.

    Args:
        request: of the driver.
    """

    def __init__(self, request: NodeRequest):
        from ray.util import get_node_ip_address

        self._files = request.files
        self._where = f"node {get_node_ip_address()} of the Ray cluster"  # type: ignore[no-untyped-call]
        self._machine, self._problem = examine(request)
        self._context, self._ended = ExitStack(), False
        if not self._problem:
            os.chdir(self._files.here)
            vars(sys.modules["__main__"]).pop("__file__", None)  # Ray's own, which the process would import
            os.environ["PUREBENCH_WEIGHTS"] = self._files.weights(request.settings.options.weights_root)
            settings = self._files.settings(request.settings)
            self._processes = self._context.enter_context(local_processes(settings))
            self._process = self._processes.start()

    def send(self, task: Task) -> None:
        """Give a task to the process."""
        self._processes.send(self._process, self._files.task(task))

    def report(self, seconds: float) -> Report:
        """Wait for messages of the process.

        Args:
            seconds: time after which none is waited for.
        """
        if self._ended:
            return Report(self._machine, [], 0)
        if self._problem:
            from ray import get_runtime_context

            refusal = Refusal(get_runtime_context().get_node_id(), UserError(self._problem).within(self._where))
            return Report(self._machine, [], 0, refusal)
        messages = [self._told(message) for _, message in self._processes.receive(seconds)]
        return Report(self._machine, messages, 0 if self._ended else self._processes.memory(self._process))

    def _told(self, message: Message) -> Message:
        if isinstance(message, Failed) and isinstance(message.error, UserError):
            return Failed(message.error.within(self._where))
        return self._files.told(message)

    def stop(self, trace: bool) -> Ending:
        """End the process and all that it started; `bench.execution.workers.backend.Backend.stop` has the argument."""
        self._ended = True
        with self._context:
            return self._processes.stop(self._process, trace=trace)
