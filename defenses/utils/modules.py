"""Copies of modules that share every tensor with the original, with some of their parts exchanged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def shared_copy(module: M, **attributes: Any) -> M:
    """A shallow copy: the same tensors, hooks and children, but for the attributes given.

    Args:
        module: any module; it stays as it is.
        **attributes: values that the copy has instead.
    """
    copy = module.__new__(type(module))
    vars(copy).update(vars(module))
    vars(copy)["_modules"] = dict(module._modules)
    for name, value in attributes.items():
        setattr(copy, name, value)
    return copy


def replace_modules(module: nn.Module, change: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """A twin of a tree of modules in which some modules are others; the module itself where none is.

    Args:
        module: root of the tree.
        change: from a module to the one in its place; None: it stays, and its children are looked at.
    """
    new = change(module)
    if new is not None:
        return new
    children = {n: replace_modules(child, change) for n, child in module.named_children()}
    other = {n: child for n, child in children.items() if child is not module._modules[n]}
    return shared_copy(module, **other) if other else module
