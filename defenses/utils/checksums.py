"""Checksums of descriptions in JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

_CHECKSUM = "sum"  # key of the digest of all other entries


def with_checksum(content: Mapping[str, object]) -> dict[str, object]:
    """Return the content with a checksum of itself, which replaces an earlier one."""
    rest = {key: value for key, value in content.items() if key != _CHECKSUM}
    return rest | {_CHECKSUM: digest(rest)}


def is_whole(content: Mapping[str, object]) -> bool:
    """Return True if the checksum is right or absent; files of older versions have none."""
    return _CHECKSUM not in content or content == with_checksum(content)


def digest(content: Any, *, default: Callable[[Any], Any] | None = None, compact: bool = False) -> str:
    """Return the SHA-256, in hex, of a content written as JSON with sorted keys.

    Args:
        content: what `json.dumps` takes.
        default: how values that JSON does not know are written, as for `json.dumps`; None refuses them.
        compact: without spaces, as in the keys of cells.
    """
    separators = (",", ":") if compact else None
    text = json.dumps(content, sort_keys=True, default=default, separators=separators)
    return hashlib.sha256(text.encode()).hexdigest()
