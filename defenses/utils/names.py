"""Kinds of names: of registered defenses, zoo models, plug-ins, files."""

from __future__ import annotations


def is_zoo(name: str) -> bool:
    """Whether a name means a model of RobustBench's zoo: "robustbench:Wong2020Fast"."""
    return name.startswith("robustbench:")


def is_plugin(name: str) -> bool:
    """Whether a name means somebody's own class: "module:Class" or "path/to/file.py:Class"."""
    return isinstance(name, str) and ":" in name and not is_zoo(name)
