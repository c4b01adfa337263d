"""Descriptions in JSON that tell whether they are what was written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_SEAL = "sum"  # sha256 of the rest


def with_checksum(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with a checksum of itself, in place of one that it may have."""
    rest = {key: value for key, value in content.items() if key != _SEAL}
    return rest | {_SEAL: _sum(rest)}


def is_whole(content: Mapping[str, Any]) -> bool:
    """Whether the checksum is right; so it is where there is none, in files of older versions."""
    return _SEAL not in content or content == with_checksum(content)


def _sum(rest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
