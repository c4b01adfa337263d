"""purebench: tells whether a defense against adversarial examples really works."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.analysis.results import load_cells, load_draws, load_results
    from bench.analysis.summary import summary
    from bench.analysis.worst_case import worst_per_image
    from bench.api.benchmark import benchmark, clean_accuracy
    from bench.spec.threat import ThreatModel
    from bench.spec.view import ViewSpec

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
    "ThreatModel": "bench.spec.threat",
    "ViewSpec": "bench.spec.view",
    "benchmark": "bench.api.benchmark",
    "clean_accuracy": "bench.api.benchmark",
    "load_cells": "bench.analysis.results",
    "load_draws": "bench.analysis.results",
    "load_results": "bench.analysis.results",
    "summary": "bench.analysis.summary",
    "worst_per_image": "bench.analysis.worst_case",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_WHERE[name]), name)
