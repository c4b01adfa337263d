"""Arithmetic of a defense while an attack searches: set for the search, and undone before the verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.evaluation.devices import device_of
from bench.spec.compute import Compute
from defenses.core.defense import Defense
from defenses.utils.errors import UserError
from defenses.utils.precision import autocast, check_precision, multiplied_in


@contextmanager
def searched_in(compute: Compute, defense: Defense) -> Iterator[None]:
    """Let a defense compute as asked; on leaving it has the same weights, in the same memory, as before.

    Raises:
        UserError: its device lacks the precision, or a model views features of the order NHWC as vectors.
    """
    check_precision(compute.precision, device_of(defense))
    with ExitStack() as stack:
        stack.enter_context(multiplied_in(compute.precision))
        if compute.channels_last:
            stack.enter_context(_channels_last(defense))
        if compute.precision == "bf16":
            stack.enter_context(_bf16(defense))
        yield


def changes_logits(defense: Defense) -> bool:
    """Return True during a search in which `defense.logits` computes otherwise than its networks alone."""
    return "logits" in vars(defense)


class _Autocast(NamedTuple):
    """Logits of a defense under autocast, as float32; a deep copy is of the copied defense.

    Args:
        plain: the defense's method.
    """

    plain: Callable[..., Tensor]

    def __call__(self, x: Tensor, *args: Any, **options: Any) -> Tensor:
        with autocast("bf16", x.device):
            return self.plain(x, *args, **options).float()


@contextmanager
def _bf16(defense: Defense) -> Iterator[None]:
    """Compute logits under autocast, as float32; attacks that query the defense directly get the same ones."""
    members = vars(defense)
    before = members.get("logits")
    members["logits"] = _Autocast(defense.logits)
    try:
        yield
    finally:
        del members["logits"]
        if before is not None:
            members["logits"] = before


@contextmanager
def _channels_last(defense: Defense) -> Iterator[None]:
    """Put copies in the order NHWC in the place of the weights of convolutions, which features then follow."""
    kept = [(p, p.data) for p in defense.parameters() if p.dim() == 4]
    try:
        for p, weights in kept:
            p.data = weights.contiguous(memory_format=torch.channels_last)
        yield
    except RuntimeError as error:
        if "view size is not compatible" not in str(error):
            raise
        raise UserError("this model needs the order NCHW; leave out channels_last") from error
    finally:
        for p, weights in kept:
            p.data = weights
