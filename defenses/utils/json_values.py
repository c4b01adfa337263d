"""Types of parsed JSON and TOML, whose values are known by key alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]  # an object of JSON, or a table of TOML
JsonView = Mapping[str, Any]  # one that is only read
