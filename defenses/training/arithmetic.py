"""Arithmetic of a training: precision, memory order, compilation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from defenses.utils.errors import UserError
from defenses.utils.plugins import line_of
from defenses.utils.precision import Precision, autocast, multiplied_in


@dataclass(frozen=True)
class Arithmetic:
    """Arithmetic of a training; weights, averages and validation are float32 in every precision.

    Args:
        precision: of the losses and their gradients: "float32"; "tf32" multiplies float32 matrices in TF32 on devices
            that have it; "bf16" is autocast to bfloat16.
        channels_last: keep weights and features in the order NHWC, which convolutions are faster in.
        compile: run the network through `torch.compile`; not for methods that differentiate twice.
    """

    precision: Precision = "float32"
    channels_last: bool = False
    compile: bool = False

    def prepare(self, network: nn.Module) -> None:
        """Change a network in place; names and values of its weights stay."""
        if self.channels_last:
            network.to(memory_format=torch.channels_last)
        if self.compile:
            network.compile()

    def autocast(self, device: torch.device) -> torch.autocast:
        """Return the context of a loss."""
        return autocast(self.precision, device)

    @contextlib.contextmanager
    def in_force(self) -> Iterator[None]:
        """Set TF32 for the block, and explain what cannot be compiled.

        Raises:
            UserError: torch.compile failed.
        """
        try:
            with multiplied_in(self.precision):
                yield
        except (RuntimeError, TypeError) as error:
            if not self.compile or not _of_compiler(error):
                raise
            raise UserError(f"this training cannot be compiled ({line_of(error)}); set compile=false") from None


def _of_compiler(error: BaseException) -> bool:
    twice = ("double backward", "backward function was compiled")  # a gradient of a gradient
    modules = ("torch._dynamo", "torch._inductor")
    return type(error).__module__.startswith(modules) or any(text in str(error) for text in twice)
