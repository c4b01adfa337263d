"""What a view and its meter add to a call of the model, counted in place of timed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from models import SHAPE, Net, images
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bench.evaluation.gradient_hook import on_gradient
from bench.evaluation.view import attack_view
from bench.spec.view import ViewSpec
from defenses.core.defense import Classifier, Defense, UserModule


class Operations(TorchDispatchMode):
    """Count of torch's operations."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def profiled() -> Iterator[dict[str, int]]:
    """Count Python frames, context managers entered, and hooks registered by handle or by `on_gradient`."""
    counts = {"frames": 0, "contexts": 0, "hooks": 0}

    def seen(frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            name = frame.f_code.co_name
            counts["frames"] += 1
            counts["contexts"] += name == "__enter__"
            counts["hooks"] += name in ("register_hook", "on_gradient")
        elif event == "c_call":
            counts["contexts"] += argument.__name__ == "__enter__"

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        yield counts
    finally:
        sys.setprofile(before)


def called(model: nn.Module, x: Tensor, *, gradient: bool) -> None:
    with torch.set_grad_enabled(gradient):
        logits = model(x)
    if gradient:
        torch.autograd.grad(logits.sum(), x)


def work(model: nn.Module, *, gradient: bool) -> dict[str, int]:
    """Return what the second of two calls of a model does, and its backward pass."""
    x = images(4).requires_grad_(gradient)
    called(model, x, gradient=gradient)
    with profiled() as counts:
        called(model, x, gradient=gradient)
    with Operations() as operations:
        called(model, x, gradient=gradient)
    return {**counts, "operations": operations.count}


class Deterministic(Defense):
    """A defense of which the view knows nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Net()

    def logits(self, x: Tensor, noise: object, **_: object) -> Tensor:  # type: ignore[override]
        return self.network(x)  # type: ignore[no-any-return]


KINDS: dict[str, Callable[[], Defense]] = {
    "classifier": lambda: Classifier(Net(), num_classes=10, input_shape=SHAPE),
    "user module": lambda: UserModule(Net(), stochastic=False),
    "any other": Deterministic,
}
# Without a gradient: a copy of the logits, their sum, and the number that it is. With one: a view of the images and its
# backward; the logits detached, their sum and its number; the gradient's sum and its number.
MOST = {
    ("network", False): {"frames": 12, "contexts": 0, "hooks": 0, "operations": 3},
    ("network", True): {"frames": 16, "contexts": 0, "hooks": 2, "operations": 7},
    ("defense", False): {"frames": 19, "contexts": 0, "hooks": 0, "operations": 3},
    ("defense", True): {"frames": 23, "contexts": 0, "hooks": 2, "operations": 7},
}


@pytest.mark.parametrize("gradient", [False, True], ids=["values", "gradient"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_view_adds_little_to_a_call(kind: str, gradient: bool) -> None:
    defense = KINDS[kind]()
    network = next(defense.children())
    network.requires_grad_(False)
    bare = work(network, gradient=gradient)
    with attack_view(defense, ViewSpec(), seed=0) as (view, _):
        through = work(view, gradient=gradient)
    added, most = (
        {k: through[k] - bare[k] for k in bare},
        MOST["defense" if kind == "any other" else "network", gradient],
    )
    assert all(added[k] <= most[k] for k in most), added


TENSORS: dict[str, Callable[[Tensor], Tensor]] = {
    "leaf": lambda x: x,
    "view": lambda x: x.view_as(x),
    "result": lambda x: 3 * x,
    "one of several": lambda x: (3 * x).unbind()[1],
    "view of what was written into": lambda x: written(3 * x),
}


def written(y: Tensor) -> Tensor:
    row = y[0]
    y.mul_(2)
    return row


@pytest.mark.parametrize("before", [False, True], ids=["first hook", "later hook"])
@pytest.mark.parametrize("kind", TENSORS)
def test_hooks_without_handles_see_what_torch_tells_its_own(kind: str, before: bool) -> None:
    x = images(3).requires_grad_()
    tensor = TENSORS[kind](x)
    ours: list[Tensor] = []
    theirs: list[Tensor] = []
    if before:
        tensor.register_hook(lambda g: theirs.append(g.clone()))
    on_gradient(tensor, lambda g: ours.append(g.clone()))  # torch may add to it later
    if not before:
        tensor.register_hook(lambda g: theirs.append(g.clone()))
    removed = tensor.register_hook(lambda _: pytest.fail("a removed hook was called"))
    removed.remove()
    loss = (tensor**2).sum()
    loss.backward(retain_graph=True)
    loss.backward()
    assert len(ours) == len(theirs) == 2
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, 2 * tensor)


def test_a_hook_without_handle_may_raise() -> None:
    def refuse(_: Tensor) -> None:
        raise FloatingPointError("refused")

    x = images(3).requires_grad_()
    y = x.view_as(x)
    on_gradient(y, refuse)
    with pytest.raises(FloatingPointError, match="refused"):
        y.sum().backward()
