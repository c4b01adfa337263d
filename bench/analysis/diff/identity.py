"""Say what differs between two cells, in what their keys are made of."""

from __future__ import annotations

from collections.abc import Iterator

from defenses.utils.json_values import JsonView

_LISTS = {  # names of the places of a list in `Cell.identity`
    "attack": ("attack", "attack parameter", "attack's library"),
    "data": ("data set", "split", "data revision", "index list", "first image of the cell", "end of the cell"),
    "threat": ("norm", "eps", "targets"),
    "view": ("gradient", "EOT copies", "runs of the view", "output of the view", "seed known"),
    "compute": ("precision", "channels_last"),
    "verdict": ("held-out draws", "selection draws", "sequential rule"),
}
_ABSENT = "none"


def identity_changes(old: JsonView, new: JsonView) -> list[tuple[str, str, str]]:
    """Return (what, old value, new value) of everything in which two identities differ, in a fixed order.

    Args:
        old: `Cell.identity()` of a cell.
        new: that of another one.
    """
    before, after = dict(_named(old)), dict(_named(new))
    names = [*before, *(name for name in after if name not in before)]
    pairs = ((name, before.get(name, _ABSENT), after.get(name, _ABSENT)) for name in names)
    return [(name, one, other) for name, one, other in pairs if one != other]


def _named(identity: JsonView) -> Iterator[tuple[str, str]]:
    """Yield the (name, value) of everything in an identity."""
    for key, value in identity.items():
        if key in _LISTS:
            for name, part in zip(_LISTS[key], value, strict=False):
                yield from _flat(name, part)
        elif key == "defense":
            yield from _defense(value, "")
        elif key == "source":
            yield from _defense(value, "surrogate's ")
        elif key == "source_view":
            yield "surrogate's view", ", ".join(map(str, value))
        else:
            yield key, str(value)


def _defense(fingerprint: JsonView, of: str) -> Iterator[tuple[str, str]]:
    """Yield the (name, value) of everything in the fingerprint of a defense."""
    words = {"name": "defense", "parameters": "parameter", "version": "version of the defense", "weights": "weights"}
    for key, value in fingerprint.items():
        yield from _flat(of + words.get(key, f"{key} of the defense"), value)


def _flat(name: str, value: object) -> Iterator[tuple[str, str]]:
    """Yield a value, or those of a mapping or a list of mappings, each under its own name."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{name} {key}", inner)
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for at, inner in enumerate(value):
            yield from _flat(f"{name} {at}", inner)
    else:
        yield name, _ABSENT if value is None else str(value)
