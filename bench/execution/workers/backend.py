"""Interface between the worker pool and what its workers are: local processes, or those of a cluster."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from bench.execution.workers.messages import Message
from bench.execution.workers.tasks import Task


class Ending(NamedTuple):
    """The end of a worker.

    Args:
        cause: in words, as "signal 9".
        trace: the traceback that it left; None: there is none.
        lost: its machine is out of reach, which tells nothing of how it started.
    """

    cause: str
    trace: str | None
    lost: bool = False


class Backend(Protocol):
    """Workers, by number; each runs one task at a time, see `bench.execution.workers.session`."""

    def start(self) -> int:
        """Start a worker, which sends `Ready`, and return its number, which no other has had."""

    def send(self, worker: int, task: Task) -> None:
        """Give a task to a worker; one that has died is reported by `receive`."""

    def receive(self, seconds: float) -> Iterable[tuple[int, Message]]:
        """Wait for messages, and return them with the numbers of their workers, those of a worker in their order.

        Args:
            seconds: time after which none is waited for.
        """

    def memory(self, worker: int) -> int:
        """Return the bytes of memory that a worker holds; 0 if it has ended, or where that is unknown."""

    def stop(self, worker: int, *, trace: bool) -> Ending:
        """End a worker and all that it started, also one that has died, and return how it ended.

        Args:
            worker: its number, not to be used again.
            trace: ask the worker for a traceback first.
        """
