"""Kinds of names: registered defenses, zoo models, plug-ins, files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_GIVEN = "given:"  # before a file of precomputed images


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


def short_names(names: Sequence[str]) -> list[str]:
    """Return names as tables show them: of a user's file without the folders that tell it from no other.

    Args:
        names: of defenses or attacks, "path/to/file.py:Name" and "given:path" among them.
    """
    parts = {name: _parts(name) for name in names if _is_file(name)}
    return [_shortest(name, parts) if name in parts else name for name in names]


def is_short_of(label: str, name: str) -> bool:
    """Return True if a label is the name of a user's file, with or without its folders."""
    return _is_file(name) and _parts(name)[-len(_parts(label)) :] == _parts(label)


def _is_file(name: str) -> bool:
    return isinstance(name, str) and (".py:" in name or name.startswith(_GIVEN))


def _parts(name: str) -> tuple[str, ...]:
    """Return the folders of a user's file, and its name."""
    path = name.removeprefix(_GIVEN).replace("\\", "/")
    return tuple(part for part in path.split("/") if part not in ("", "."))


def _shortest(name: str, parts: Mapping[str, tuple[str, ...]]) -> str:
    """Return a file's name with as many of its folders as no other file has."""
    own, others = parts[name], {other for other in parts.values() if other != parts[name]}
    sizes = range(1, len(own) + 1)
    size = next((n for n in sizes if not any(other[-n:] == own[-n:] for other in others)), len(own))
    return (_GIVEN if name.startswith(_GIVEN) else "") + "/".join(own[-size:])


def is_plugin(name: str) -> bool:
    """Return True if a name is a user-defined class: "module:Class" or "path/to/file.py:Class"."""
    return isinstance(name, str) and ":" in name and not is_zoo(name)
