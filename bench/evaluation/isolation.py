"""What models and attacks may leave behind in a process: nothing; and what they may print: little."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import torch
from torch import nn

from defenses.core.defense import Defense

_MOST = 2000  # characters that a cell may print


def state(module: nn.Module) -> str:
    """A digest of a module's parameters, buffers and modes, which no call may change.

    Of each tensor it is a CRC-32: a changed bit always shows, and any other change but for one in 2**32, in a fraction
    of the time that a cryptographic hash takes: it is made after every cell.
    """
    digest = hashlib.sha256()
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        if tensor.layout == torch.strided and not tensor.is_meta and tensor.numel():
            flat = tensor.detach().cpu().contiguous().flatten()
            digest.update(f"{zlib.crc32(flat.view(torch.uint8).numpy().data)};".encode())
    digest.update(bytes(m.training for m in module.modules() if not isinstance(m, Defense)))  # has one mode only
    return digest.hexdigest()


@contextmanager
def preserve_global_state() -> Iterator[None]:
    """Put back what somebody's code may change for the whole process, and bound what it prints (on standard error).

    That is torch's default type, gradient mode and threads, and the working directory. What is printed first is
    passed on without control characters, the rest is counted.
    """
    dtype, grad, threads, folder = (
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
        os.getcwd(),
    )
    printed = _Bounded(sys.stderr)
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        os.chdir(folder)
        printed.end()


class _Bounded(io.TextIOBase):
    """Passes on the first characters that are written."""

    def __init__(self, to: TextIO):
        self._to, self._passed, self._more = to, 0, 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        kept = text[: max(0, _MOST - self._passed)]
        self._passed += len(kept)
        self._more += len(text) - len(kept)
        self._to.write("".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in kept))
        return len(text)

    def flush(self) -> None:
        self._to.flush()

    def end(self) -> None:
        """Say how much was left out."""
        if self._more:
            self._to.write(f"\n({self._more} more characters were printed)\n")
        self._to.flush()
