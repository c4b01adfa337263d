"""Equal random values in float32 and float64, so that a model's gradients in both can be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_SAMPLERS = (
    *("rand", "randn", "randint", "rand_like", "randn_like", "randint_like", "random", "normal", "uniform"),
    *("bernoulli", "binomial", "cauchy", "exponential", "geometric", "log_normal", "multinomial", "poisson"),
    *("_standard_gamma", "_sample_dirichlet"),
)
_DROPOUT = torch.ops.aten.native_dropout.default


class SingleDraws(TorchDispatchMode):
    """A context in which torch makes float64 draws in float32, and then converts them.

    Without it, a generator state gives other values in float64 than in float32. It covers every operation below
    autograd: in-place and `out` variants, dropout, `torch.distributions`.
    """

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> object:
        """See `TorchDispatchMode`."""
        named = dict(kwargs or {})
        name = func.overloadpacket.__name__
        if func is _DROPOUT and _is_double(args[0]):
            return _dropout(*args)
        if name.rstrip("_") not in _SAMPLERS or not _wants_double(args, named):
            return func(*args, **named)
        drawn = func(*map(_single, args), **{key: _single(value) for key, value in named.items()})
        target = args[0] if name.endswith("_") else named.get("out")
        if target is not None:
            return target.copy_(drawn)
        return drawn.double() if drawn.is_floating_point() else drawn


def _wants_double(args: Sequence[object], named: Mapping[str, object]) -> bool:
    if named.get("dtype") is not None:
        return bool(named["dtype"] == torch.float64)
    return any(map(_is_double, (*args, *named.values())))


def _is_double(value: object) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.float64


def _single(value: Any) -> Any:
    if _is_double(value):
        return value.float()
    return torch.float32 if value is torch.float64 else value


def _dropout(x: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    """Return (output, mask) of dropout as accelerators compute it: the mask is drawn, the product stays in float64."""
    mask = _DROPOUT(x.float(), p, train)[1]
    return (x if train is False else x * mask / (1 - p) if p < 1 else torch.zeros_like(x)), mask
