"""purebench: tells whether a defense against adversarial examples really works."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from defenses.utils.autoattack_finder import provide_autoattack as _provide_autoattack

if TYPE_CHECKING:
    from bench.api import benchmark, clean_accuracy
    from bench.results import load_cells, load_draws, load_results
    from bench.summarise import summary
    from bench.threat import ThreatModel
    from bench.viewspec import ViewSpec
    from bench.worst import worst_per_image

__all__ = [
    "ThreatModel",
    "ViewSpec",
    "benchmark",
    "clean_accuracy",
    "load_cells",
    "load_draws",
    "load_results",
    "summary",
    "worst_per_image",
]

_WHERE = {
    "ThreatModel": "bench.threat",
    "ViewSpec": "bench.viewspec",
    "benchmark": "bench.api",
    "clean_accuracy": "bench.api",
    "load_cells": "bench.results",
    "load_draws": "bench.results",
    "load_results": "bench.results",
    "summary": "bench.summarise",
    "worst_per_image": "bench.worst",
}

_provide_autoattack()  # robustbench imports it; worker processes import this package too


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_WHERE[name]), name)
