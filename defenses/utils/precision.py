"""Precision of arithmetic: float32, TF32 and bfloat16. Nothing here imports torch before it computes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, get_args

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

    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    fast = precision == "tf32"
    torch.set_float32_matmul_precision("high" if fast else "highest")
    torch.backends.cudnn.allow_tf32 = fast
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Return the context of a computation: autocast to bfloat16 for "bf16", else nothing."""
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def check_precision(precision: Precision, device: torch.device) -> None:
    """Refuse a precision that a device is known to lack.

    Raises:
        UserError: TF32 on anything but an NVIDIA GPU of compute capability 8 or more, or bfloat16 on one of less.
    """
    import torch

    capable = device.type == "cuda" and (torch.version.hip or torch.cuda.get_device_capability(device)[0] >= 8)
    if (precision == "tf32" and not capable) or (precision == "bf16" and device.type == "cuda" and not capable):
        raise UserError(f'precision is "{precision}", which the device "{device}" does not have; write "float32"')
