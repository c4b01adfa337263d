"""Run attack libraries without their output, and restore the state of the process."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@contextmanager
def library_call(seed: int, device: torch.device, *loggers: str) -> Iterator[None]:
    """Run a library: global generators forked and seeded, nothing printed, logged or warned, tracing restored.

    All adapters seed by it: on entry `torch.manual_seed(seed)`, `numpy.random.seed(seed % 2**32)` and
    `random.seed(seed)`; on leaving, every generator is restored.

    Args:
        seed: of the attack.
        device: whose generator is seeded too.
        loggers: names of loggers to silence.
    """
    from defenses.utils.isolation import seeded_globals

    levels = [(logging.getLogger(name), logging.getLogger(name).level) for name in loggers]
    tracer = sys.gettrace()
    try:
        for logger, _ in levels:
            logger.setLevel(logging.CRITICAL + 1)
        with seeded_globals(seed, device), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in levels:
            logger.setLevel(level)
        if sys.gettrace() is not tracer:  # AutoAttack's check of dynamic defenses disables tracing
            sys.settrace(tracer)
