"""Tasks of workers: what the worker does, and what stands for its answer when it dies or exceeds a limit."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from bench.evaluation.certificates.stored import failed
from bench.evaluation.cost import seconds_since
from bench.execution.finish_cell import finish
from bench.execution.workers.messages import (
    Busy,
    Certified,
    Checked,
    Computed,
    Entered,
    Finished,
    TaskMessage,
    Unfinished,
    WorkerState,
)
from bench.execution.workers.session import Session
from bench.spec.cell import Cell
from bench.store.parts import CellRecord
from defenses.utils.errors import UserError


@dataclass(frozen=True)
class Task(ABC):
    """A task.

    Args:
        cell: the cell that it is about, or whose defense it is about.
    """

    cell: Cell
    attempts: ClassVar[int] = 2  # workers that may die on it
    died: ClassVar[str] = " twice at this cell"

    @property
    def name(self) -> str:
        """Return the name of the task in messages."""
        return f"{type(self).__name__} {self.cell.key}"

    @abstractmethod
    def run(self, session: Session) -> TaskMessage:
        """Do the task in a worker, and return its answer."""

    @abstractmethod
    def on_timeout(self, problem: str, trace: str | None) -> TaskMessage:
        """Return the answer of a worker that was ended as it exceeded a limit, of time or memory.

        Args:
            problem: the limit, for the user.
            trace: traceback of the worker; None: there is none.

        Raises:
            UserError: the run cannot go on.
        """

    def on_death(self, cause: str, trace: str | None) -> TaskMessage:
        """Return the answer when the last attempt has ended in the death of its worker; as `on_timeout`."""
        return self.on_timeout(f"the worker died ({cause}){self.died}", trace)


@dataclass(frozen=True)
class LoadTask(Task):
    """Load and check the defense of a cell."""

    died = " twice while the model was checked"

    def run(self, session: Session) -> TaskMessage:
        """Check the defense."""
        return Checked(self.name, *session.runner.check(self.cell))

    def on_timeout(self, problem: str, trace: str | None) -> TaskMessage:
        """Refuse the model."""
        raise UserError(f"{self.cell.defense.title}: {problem}")


@dataclass(frozen=True)
class CertifyTask(Task):
    """Certify the gradients of the defense of a cell; where that fails, its cells will fail likewise."""

    attempts = 1
    died = ""

    def run(self, session: Session) -> TaskMessage:
        """Measure the certificate."""
        session.runner.defense(self.cell)
        session.send(Entered(self.name, WorkerState.WORK))
        return Certified(self.name, session.certificate(self.cell))

    def on_timeout(self, problem: str, trace: str | None) -> TaskMessage:
        """Record a certificate that failed."""
        return Certified(self.name, failed(problem))


@dataclass(frozen=True)
class CellTask(Task):
    """Run a cell.

    Args:
        superseded: a stored record of the cell that does not count as finished.
        wait: wait for another process that runs the cell.
    """

    superseded: CellRecord | None = None
    wait: bool = False

    def run(self, session: Session) -> TaskMessage:
        """Run the cell and store its result, unless another process is running it."""
        session.runner.defense(self.cell)
        session.send(Entered(self.name, WorkerState.WAIT))
        with session.store.lock(self.cell.key, wait=self.wait) as acquired:
            if not acquired:
                return Busy(self.name)
            session.send(Entered(self.name, WorkerState.WORK))
            run = session.settings.run
            return Finished(self.name, finish(session.store, self.cell, session.result, run, self.superseded))

    def on_timeout(self, problem: str, trace: str | None) -> TaskMessage:
        """Return the problem, to be recorded."""
        return Unfinished(self.name, problem, trace)


@dataclass(frozen=True)
class ComputeTask(CellTask):
    """Run a cell whose lock the pool holds, and which the pool stores."""

    def run(self, session: Session) -> TaskMessage:
        """Run the cell."""
        session.runner.defense(self.cell)
        session.send(Entered(self.name, WorkerState.WORK))
        begin = time.perf_counter()
        result = session.result(self.cell)
        return Computed(self.name, result, seconds_since(begin))
