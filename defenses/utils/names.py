"""Kinds of names: registered defenses, zoo models, plug-ins, files."""

from __future__ import annotations


def is_zoo(name: str) -> bool:
    """Return True if a name is a model of RobustBench's zoo: "robustbench:Wong2020Fast"."""
    return name.startswith("robustbench:")


def portable(name: str) -> str:
    """Return a name without the folder of a user's file, whose contents are hashed instead."""
    kind, colon, rest = name.partition(":")
    if colon and (kind == "folder" or (kind == "hf" and rest.startswith(("/", ".", "~")))):
        path, mark, options = rest.partition("?")
        return f"{kind}:{path.rstrip('/').rpartition('/')[2]}{mark}{options}"
    return name.replace("\\", "/").rpartition("/")[2] if ".py:" in name or name.endswith(".npz") else name


def is_plugin(name: str) -> bool:
    """Return True if a name is a user-defined class: "module:Class" or "path/to/file.py:Class"."""
    return isinstance(name, str) and ":" in name and not is_zoo(name)
