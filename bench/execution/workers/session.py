"""The state of a worker, on which its tasks run."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from bench.board.board import BoardImages
from bench.evaluation.certificates.certificate import CertificateRecord
from bench.evaluation.certificates.stored import failed
from bench.execution.cell_runner import CellRunner
from bench.execution.workers.limits import GIB
from bench.execution.workers.messages import Advanced, Message
from bench.spec.cell import Cell
from bench.store.folder import CellResult, Store

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from bench.execution.options import Options

_ALLOWED = 0.95  # of the limit, so that memory runs out before the pool ends the worker


@dataclass(frozen=True)
class WorkerSettings:
    """Settings of a run, the same for all its workers.

    Args:
        images: of the board.
        threads: torch threads of a worker.
        folder: the results folder; None: the workers share none with the pool, which stores their results.
        options: options of the run.
        run: id of the run.
        memory: GiB that a worker may hold; None: no limit.
    """

    images: BoardImages
    threads: int
    folder: Path | None
    options: Options
    run: str
    memory: float | None = None


class Session:
    """Results folder, data and defenses of a worker.

    Args:
        settings: of the run.
        send: sends a message to the pool.
    """

    def __init__(self, settings: WorkerSettings, send: Callable[[Message], None]):
        import torch

        torch.set_num_threads(settings.threads)
        _share_accelerator(settings.options)
        self.settings, self.send = settings, send
        self.runner = CellRunner(settings.images, settings.options, self._advanced)

    def _advanced(self, key: str, share: float) -> None:
        with suppress(OSError):  # the pool has died: no fault of the attack that is running
            self.send(Advanced(key, share))

    @cached_property
    def store(self) -> Store:
        """Return the results folder, which the worker shares with the pool."""
        assert self.settings.folder is not None
        return Store(self.settings.folder)

    def certificate(self, cell: Cell) -> CertificateRecord:
        """Return the certificate of the defense of a cell; as a worker ignores Ctrl-C, an interrupt is the model's."""
        try:
            return self.runner.certify(cell)
        except KeyboardInterrupt as error:
            return failed(f"KeyboardInterrupt: {error}".rstrip(": "))

    def result(self, cell: Cell) -> CellResult:
        """Run a cell; an interrupt is an error of the model, as in `certificate`."""
        try:
            return self._execute_within(self.settings.memory, cell)
        except KeyboardInterrupt as error:
            return CellResult.failure(cell, f"KeyboardInterrupt: {error}".rstrip(": "), traceback.format_exc())

    def _execute_within(self, memory: float | None, cell: Cell) -> CellResult:
        """Run a cell under a memory limit, where torch raises an error on which batches are halved."""
        if memory is None or resource is None or sys.platform != "linux" or self.settings.options.device != "cpu":
            return self.runner.execute(cell)
        usage = psutil.Process().memory_info()
        before = resource.getrlimit(resource.RLIMIT_DATA)
        limit = int(usage.data + max(0.0, _ALLOWED * memory * GIB - usage.rss))
        resource.setrlimit(resource.RLIMIT_DATA, (limit if before[1] < 0 else min(limit, before[1]), before[1]))
        try:
            result = self.runner.execute(cell)
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, before)
        if result.out_of_memory:
            result.line["error"] = f"{result.line['error']}; a worker may hold {memory:.3g} GiB (--memory)"
        return result


def _share_accelerator(options: Options) -> None:
    """Limit the worker to its share of an accelerator's memory; beyond it, batches are halved as on the CPU."""
    import torch

    device = torch.device(options.device)
    if device.type == "cuda" and options.workers > 1:
        torch.cuda.set_per_process_memory_fraction(_ALLOWED / options.workers, device.index)
