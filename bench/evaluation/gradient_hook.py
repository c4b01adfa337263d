"""Hooks on the gradient of a tensor, registered in a third of the time that `Tensor.register_hook` takes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor

_KEY = -1  # keys of torch's own handles are not negative


def on_gradient(tensor: Tensor, hook: Callable[[Tensor], None]) -> None:
    """Call a function whenever the gradient of a tensor is computed, as `Tensor.register_hook` without a handle.

    A view registers hooks in every call of the model, where handles (a weak reference and an import) would take as long
    as a layer of a small network.

    Args:
        tensor: that requires a gradient.
        hook: called with the gradient, which may be None.
    """
    node = tensor.grad_fn  # asked for first: of a view that was written into it is made anew
    if node is None or tensor._backward_hooks is not None:
        tensor.register_hook(hook)
        return
    tensor._backward_hooks = OrderedDict({_KEY: hook})  # torch's handles, should others follow, refer to it weakly
    node._register_hook_dict(tensor)
