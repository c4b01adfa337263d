"""Precision of arithmetic: float32, TF32 and bfloat16. Nothing here imports torch before it computes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

from defenses.utils.errors import UserError

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "tf32", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@contextlib.contextmanager
def multiplied_in(precision: Precision) -> Iterator[None]:
    """Multiply float32 matrices, those of convolutions too, in TF32 for "tf32", else in float32; restored on leaving.

    Without it cuDNN convolves in TF32 on devices that have it.
    """
    import torch

    fast = precision == "tf32"
    with kept_precision():
        torch.set_float32_matmul_precision("high" if fast else "highest")
        torch.backends.cudnn.allow_tf32 = fast
        for part in () if fast else _parts():  # for TF32 the flags set the parts
            part.fp32_precision = "ieee"
        yield


@contextlib.contextmanager
def kept_precision() -> Iterator[None]:
    """Restore the precision of products of float32 matrices, in torch's flags and in its newer `fp32_precision`."""
    import torch

    parts = [(part, part.fp32_precision) for part in _parts()]
    flags: list[Callable[[], None]] = []
    with contextlib.suppress(RuntimeError):  # torch cannot read a flag that an `fp32_precision` contradicts
        flags.append(partial(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision()))
    with contextlib.suppress(RuntimeError):
        flags.append(partial(setattr, torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32))
    try:
        yield
    finally:
        for restore in flags:
            restore()
        for part, before in parts:  # after the flags, which set them
            part.fp32_precision = before


def _parts() -> list[Any]:
    """Return the parts of torch that have an `fp32_precision`."""
    import torch

    backends: Any = torch.backends
    cudnn, mkldnn = backends.cudnn, backends.mkldnn
    return [backends.cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn]


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Return the context of a computation: autocast to bfloat16 for "bf16", else nothing."""
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def check_precision(precision: Precision, device: torch.device) -> None:
    """Refuse a precision that a device is known to lack.

    Raises:
        UserError: TF32 on a CPU, or TF32 or bfloat16 on an NVIDIA GPU of compute capability below 8. AMD GPUs pass.
    """
    import torch

    capable = device.type == "cuda" and (torch.version.hip or torch.cuda.get_device_capability(device)[0] >= 8)
    if (precision == "tf32" and not capable) or (precision == "bf16" and device.type == "cuda" and not capable):
        raise UserError(f'precision is "{precision}", which the device "{device}" does not have; write "float32"')
