"""Shallow copies of modules with replaced submodules."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def shared_copy(module: M, **attributes: object) -> M:
    """Return a shallow copy with the same tensors, hooks and children, and some other attributes.

    Args:
        module: any module; it is not changed.
        **attributes: values of the copy.
    """
    copy = module.__new__(type(module))
    vars(copy).update(vars(module))
    vars(copy)["_modules"] = dict(module._modules)
    for name, value in attributes.items():
        setattr(copy, name, value)
    return copy


def replace_modules(module: nn.Module, change: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """Return a copy of a tree of modules with some modules replaced; the module itself if none is.

    Args:
        module: root of the tree.
        change: from a module to its replacement; None keeps it and goes on with its children.
    """
    replacement = change(module)
    if replacement is not None:
        return replacement
    children = {n: replace_modules(child, change) for n, child in module.named_children()}
    replaced = {n: child for n, child in children.items() if child is not module._modules[n]}
    return shared_copy(module, **replaced) if replaced else module
