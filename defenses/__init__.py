"""Defenses against adversarial examples, behind one interface: `load_model`, `list_models`, `Defense`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from defenses.utils.autoattack_finder import provide_autoattack as _provide_autoattack

if TYPE_CHECKING:
    from defenses.base import Classifier, Defense, Purified
    from defenses.catalogue import card, list_models
    from defenses.registry import load_model

__all__ = ["Classifier", "Defense", "Purified", "card", "list_models", "load_model"]

_WHERE = {
    "Classifier": "defenses.base",
    "Defense": "defenses.base",
    "Purified": "defenses.base",
    "card": "defenses.catalogue",
    "list_models": "defenses.catalogue",
    "load_model": "defenses.registry",
}

_provide_autoattack()  # robustbench imports it; worker processes import this package too


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_WHERE[name]), name)
