"""Isolation of third-party code: random states, environment, output."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from defenses.utils.precision import kept_precision

_CUDNN = ("benchmark", "deterministic")  # settings of torch.backends.cudnn


class seeded_globals:
    """Context in which torch's, numpy's and Python's global generators start from `seed`; restored on leaving.

    Args:
        seed: of all of them.
        device: device whose generator of torch is seeded beside that of the CPU; those of others stay untouched.
    """

    def __init__(self, seed: int, device: torch.device):
        self.seed, self.device = seed, device

    def __enter__(self) -> None:
        """Fork and seed the generators."""
        self._python: Any = random.getstate()
        self._numpy: Any = np.random.get_state()
        self._cpu = torch.get_rng_state()
        torch.default_generator.manual_seed(self.seed)  # torch.manual_seed would seed devices that are not restored
        self._module: Any = None
        if self.device.type not in ("cpu", "meta"):
            self._module = torch.get_device_module(self.device)
            self._where = () if self.device.type == "mps" else (self.device,)  # of mps there is one
            self._state = self._module.get_rng_state(*self._where)
            with self._module.device(self.device) if self._where else contextlib.nullcontext():
                self._module.manual_seed(self.seed)
        np.random.seed(self.seed % (1 << 32))
        random.seed(self.seed)

    def __exit__(self, *exc: object) -> None:
        """Restore the generators."""
        torch.set_rng_state(self._cpu)
        if self._module is not None:
            self._module.set_rng_state(self._state, *self._where)
        np.random.set_state(self._numpy)
        random.setstate(self._python)


@contextlib.contextmanager
def kept_settings() -> Iterator[None]:
    """Restore torch's default type and device, gradient mode, threads and choice of algorithms after other code."""
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    grad, threads = torch.is_grad_enabled(), torch.get_num_threads()
    cudnn = {n: getattr(torch.backends.cudnn, n) for n in _CUDNN}
    deterministic = _deterministic()
    try:
        with kept_precision():
            yield
    finally:
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            torch.set_default_device(None if device.type == "cpu" else device)  # None: no hook on every call
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        for name, value in cudnn.items():
            setattr(torch.backends.cudnn, name, value)
        if _deterministic() != deterministic:  # the call imports torch's compiler, which takes seconds
            torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


_UNSAFE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


@contextlib.contextmanager
def robustbench_call() -> Iterator[None]:
    """Send what RobustBench prints to stderr, silence its warnings, and ignore TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD."""
    unsafe = os.environ.pop(_UNSAFE, None)
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if unsafe is not None:
            os.environ[_UNSAFE] = unsafe
