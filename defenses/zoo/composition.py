"""Compositions as boards write them: the parts that parameters name around a defense."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from defenses.utils.errors import UserError
from defenses.utils.json_values import JsonView
from defenses.utils.names import is_plugin, portable

# of a composition; all others are of a part
KEYS = ("classifier", "runs", "combine", "filters", "detector", "suspected", "level", "autoencoder")
SUSPECTED = ("refuse", "purify")  # ways to treat images that a detector suspects


@dataclass(frozen=True)
class Named:
    """Named part of a composition, with its parameters."""

    name: str
    params: Mapping[str, object]


def named(value: Any, label: str) -> Named:
    """Return a part from a name, or from a table {name = "jpeg", quality = 50}.

    Args:
        value: the name or table.
        label: of the part, for the message.

    Raises:
        UserError: the value is neither.
    """
    if isinstance(value, str):
        return Named(value, {})
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        return Named(value["name"], {k: v for k, v in value.items() if k != "name"})
    raise UserError(f'{label} is {value!r}; write a name, or a table as {{ name = "jpeg", quality = 50 }}')


def filters_of(params: Mapping[str, object]) -> list[Named]:
    """Return the filters that parameters name, in order.

    Raises:
        UserError: the value is no list.
    """
    listed = params.get("filters") or []
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise UserError(f'filters is {listed!r}; write a list, as filters = ["bit-depth"]')
    return [named(entry, "a filter") for entry in listed]


def parts_of(params: Mapping[str, object]) -> Iterator[tuple[str, Named]]:
    """Yield the (role, part) that parameters name around the defense itself."""
    for entry in filters_of(params):
        yield "filter", entry
    if params.get("detector"):
        yield "detector", named(params["detector"], "detector")
    if params.get("classifier"):
        yield "classifier", named(params["classifier"], "classifier")


def renamed(params: JsonView, change: Callable[[str], str]) -> dict[str, object]:
    """Return parameters with other names for the user-defined parts ("file.py:Name").

    Args:
        params: of a composition.
        change: from a name to the new one.
    """

    def part(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {**value, "name": change(value["name"])} if is_plugin(value.get("name", "")) else value
        return change(value) if is_plugin(value) else value

    changed = dict(params)
    if "classifier" in changed:
        changed["classifier"] = part(changed["classifier"])
    if isinstance(changed.get("filters"), list | tuple):
        changed["filters"] = [part(entry) for entry in changed["filters"]]
    return changed


def plugins_of(name: str, params: JsonView) -> list[str]:
    """Return the plug-ins of a defense: itself and the parts that its parameters name."""
    around = {key: params[key] for key in ("filters", "classifier") if key in params}
    return [part for part in (name, *(part.name for _, part in parts_of(around))) if is_plugin(part)]


def with_user_parts(fingerprint: JsonView, user_parts: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Return a fingerprint with those of its user-defined parts, without the folders of their files.

    Args:
        fingerprint: of the composition without them.
        user_parts: of `Parts`, after the composition was built; if empty, the fingerprint is returned unchanged.
    """
    if not user_parts:
        return dict(fingerprint)
    around = [*fingerprint.get("around", []), *user_parts]
    return {**fingerprint, "parameters": renamed(fingerprint["parameters"], portable), "around": around}
