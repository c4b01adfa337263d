"""Count the images that pass through networks: the cost of an attack or a verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import Tensor, nn

from bench.evaluation.gradient_hook import on_gradient
from defenses.core.defense import Defense
from defenses.core.purifier import Purifier
from defenses.core.replay import measuring


class Meter:
    """Counter of images through networks, from construction to `detach`.

    An image forward through a network counts 1 forward, back through it 1 backward; `evaluations` weighs them 1 and 2.
    A module that runs a backward pass inside (the gradient of an energy) declares it in `unit_backwards`. Of a defense
    or purifier its `cost_modules` are counted, since its `logits` or steps may be called without its `forward`; of a
    list its modules.

    Args:
        modules: to count.
    """

    def __init__(self, modules: Iterable[nn.Module]):
        self.forwards = 0
        self.backwards = 0
        # TorchScript refuses hooks by an override of its own, and calls them all the same.
        hook = nn.Module.register_forward_hook
        self._handles = [hook(m, self._counter(m)) for m in dict.fromkeys(_networks(modules))]

    @property
    def evaluations(self) -> int:
        """Return forwards + 2 backwards."""
        return self.forwards + 2 * self.backwards

    def _counter(self, network: nn.Module) -> Callable[..., None]:
        """Return the forward hook of a network; a module's attributes would be slow to look up at every call."""
        return partial(self._count, getattr(network, "unit_forwards", 1), getattr(network, "unit_backwards", 0))

    def _count(self, forwards: int, backwards: int, _: nn.Module, inputs: tuple[Any, ...], output: object) -> None:
        if measuring():
            return
        rows = inputs[0].size(0) if isinstance(inputs[0], Tensor) else len(inputs[0])
        self.forwards += rows * forwards
        self.backwards += rows * backwards
        if isinstance(output, Tensor) and output.requires_grad:
            on_gradient(output, partial(self._add_backwards, rows * (forwards + 2 * backwards)))

    def _add_backwards(self, n: int, _: Tensor) -> None:
        self.backwards += n

    def detach(self) -> None:
        """Stop counting."""
        for handle in self._handles:
            handle.remove()


def _networks(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """Return the networks to count in place of defenses, purifiers and lists."""
    networks: list[nn.Module] = []
    for module in modules:
        inner = [module]
        if isinstance(module, Defense | Purifier):
            inner = module.cost_modules()
        elif isinstance(module, nn.ModuleList | nn.ModuleDict):
            inner = list(module.children())
        networks += inner if module in inner else _networks(inner)
    return networks
