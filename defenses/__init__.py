"""Defenses against adversarial examples, behind one interface: `load_model`, `list_models`, `Defense`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from defenses.core.defense import Classifier, Defense, Purified
    from defenses.zoo.cards import card, list_models
    from defenses.zoo.registry import load_model

__all__ = ["Classifier", "Defense", "Purified", "card", "list_models", "load_model"]

_WHERE = {
    "Classifier": "defenses.core.defense",
    "Defense": "defenses.core.defense",
    "Purified": "defenses.core.defense",
    "card": "defenses.zoo.cards",
    "list_models": "defenses.zoo.cards",
    "load_model": "defenses.zoo.registry",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_WHERE[name]), name)
