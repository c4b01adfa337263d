"""Restore global state after models and attacks, limit their output, and detect changed models."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TextIO

import torch
from torch import nn

from defenses.core.defense import Defense
from defenses.utils.isolation import kept_settings
from defenses.utils.precision import multiplied_in

_MOST_PRINTED = 2000  # characters of a cell


def state(module: nn.Module) -> str:
    """Return a digest of a module's parameters, buffers and modes, which no call may change.

    Tensors enter by their CRC-32, which is faster than a cryptographic hash and detects every changed bit and all but
    one in 2**32 of other changes.
    """
    digest = hashlib.sha256()
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        if tensor.layout == torch.strided and not tensor.is_meta and tensor.numel():
            flat = tensor.detach().cpu().contiguous().flatten()
            digest.update(f"{zlib.crc32(flat.view(torch.uint8).numpy().data)};".encode())
    modes = (getattr(m, "training", False) for m in module.modules() if not isinstance(m, Defense))  # that has one mode
    digest.update(bytes(modes))
    return digest.hexdigest()


@contextmanager
def preserve_global_state() -> Iterator[None]:
    """Restore the process's state after third-party code, and limit what it prints (on standard error).

    Restored are torch's settings (`kept_settings`) and the working directory. Models multiply in float32, in which
    cuDNN does not by itself. The first characters printed are passed on without control characters, the rest is
    counted.
    """
    folder, printed = os.getcwd(), _Bounded(sys.stderr)
    try:
        with ExitStack() as stack:
            stack.enter_context(kept_settings())
            stack.enter_context(multiplied_in("float32"))
            stack.enter_context(contextlib.redirect_stdout(printed))
            stack.enter_context(contextlib.redirect_stderr(printed))
            yield
    finally:
        os.chdir(folder)
        printed.end()


class _Bounded(io.TextIOBase):
    """Text stream with a limit of the characters it passes on.

    Args:
        to: the stream behind it.
    """

    def __init__(self, to: TextIO):
        self._to, self._passed, self._more = to, 0, 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        head = text[: max(0, _MOST_PRINTED - self._passed)]
        self._passed += len(head)
        self._more += len(text) - len(head)
        self._to.write("".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in head))
        return len(text)

    def flush(self) -> None:
        self._to.flush()

    def end(self) -> None:
        """Write the number of characters left out."""
        if self._more:
            self._to.write(f"\n({self._more} more characters were printed)\n")
        self._to.flush()
