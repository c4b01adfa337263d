"""Attacks that an attack is made of, and which of them choose target classes themselves."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from bench.attacks.adaptive.settings import ATTACKS, settings_of
from bench.attacks.libraries.autoattack import VERSIONS

_SUITE = "autoattack:"
_OTHER = "torchattacks:AutoAttack"  # the same versions with other budgets
_TARGETING = (f"{_SUITE}apgd-t", f"{_SUITE}fab-t", "torchattacks:APGDT")


def parts_of(name: str, params: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the attacks that an attack runs one after another; its own name if it is a single one.

    Args:
        name: in its library.
        params: its parameters as texts, those that are not the library's defaults.
    """
    local = name.removeprefix(_SUITE)
    if name == _OTHER:
        local = params.get("version", "standard")
    elif local == name or local not in (*VERSIONS, "custom"):
        return (name,)
    parts = VERSIONS.get(local) or _parsed(params.get("attacks", ""))
    return tuple(f"{_SUITE}{part}" for part in parts) if isinstance(parts, list | tuple) else (name,)


def is_targeting(name: str, params: Mapping[str, str]) -> bool:
    """Return True for a single attack that aims at wrong classes of its own choice.

    Args:
        name: in its library, see `parts_of`.
        params: likewise.
    """
    local = name.removeprefix("bench:")
    if local == name or local not in ATTACKS:
        return name in _TARGETING
    own = settings_of(local, {key: _parsed(params[key]) for key in ("losses", "restarts") if key in params})
    return "losses" in ATTACKS[local][0] and any(loss.endswith("-targeted") for loss in own.losses[: own.restarts])


def _parsed(text: str) -> Any:
    """Return the value of a parameter; its text where that is none of Python's constants."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
