"""Messages of workers to their pool."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from bench.evaluation.certificates.certificate import CertificateRecord
from bench.execution.finish_cell import CellReport
from bench.store.folder import CellResult


class WorkerFailed(Exception):
    """A fault of purebench in a worker, which has printed its traceback."""


class WorkerState(Enum):
    """The state of a worker."""

    START = auto()  # importing libraries
    LOAD = auto()  # loading the data and defense of a task, or checking it
    WAIT = auto()  # without a task, or waiting for another run to finish the cell
    WORK = auto()  # certifying or running a cell


class Ready:
    """The worker takes tasks."""


@dataclass(frozen=True)
class Failed:
    """The worker ends; the error is a `UserError` on bad input."""

    error: Exception


class Died:
    """The worker has ended without a word; the last of its messages, which the backend adds."""


@dataclass(frozen=True)
class TaskMessage:
    """A message about a task, by its name; all but `Entered` end the task."""

    task: str


@dataclass(frozen=True)
class Entered(TaskMessage):
    """A state of the task begins."""

    state: WorkerState


@dataclass(frozen=True)
class Busy(TaskMessage):
    """Another process is running the cell."""


@dataclass(frozen=True)
class Checked(TaskMessage):
    """The defense can be run; the seconds of its check, and True if it returns probabilities."""

    seconds: float
    softmax: bool


@dataclass(frozen=True)
class Certified(TaskMessage):
    """The gradient certificate of the defense."""

    certificate: CertificateRecord


@dataclass(frozen=True)
class Finished(TaskMessage):
    """The result of the cell is stored."""

    report: CellReport


@dataclass(frozen=True)
class Computed(TaskMessage):
    """The result of the cell, for the pool to store, and the seconds that it took."""

    result: CellResult
    seconds: float


@dataclass(frozen=True)
class Unfinished(TaskMessage):
    """The cell failed and is not stored: the problem in a line, and the worker's traceback if there is one."""

    problem: str
    trace: str | None


@dataclass(frozen=True)
class Advanced:
    """The share of the worker's cell that is done, which has the key."""

    key: str
    share: float


Message = Ready | Failed | Died | Advanced | TaskMessage
