"""Read and write RobustBench's `model_info` JSON, the published claims of a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from bench.spec.threat import exact
from defenses.utils.errors import UserError

# In the order in which RobustBench writes them.
KEYS: tuple[str, ...] = (
    "link",
    "name",
    "authors",
    "additional_data",
    "number_forward_passes",
    "dataset",
    "venue",
    "architecture",
)
KEYS += ("eps", "clean_acc", "reported", "corruptions_acc", "corruptions_acc_3d", "corruptions_mce")
KEYS += ("corruptions_mce_3d", "autoattack_acc", "external", "footnote", "unreliable")
FLAGS = ("additional_data", "unreliable")
TEXTS = ("link", "name", "authors", "dataset", "venue", "architecture", "footnote")
PERCENTS = tuple(k for k in KEYS if k in ("reported", "external") or k.partition("_")[2].startswith(("acc", "mce")))
_NO_NUMBER = (None, "", "-", "--", "N/A")


@dataclass(frozen=True)
class ModelInfo:
    """A model's entry.

    Args:
        raw: the JSON object, with unknown keys too.

    Raises:
        UserError: a value of a wrong type or range.
    """

    raw: Mapping[str, Any]

    def __post_init__(self) -> None:
        for key in TEXTS:
            if not isinstance(self.raw.get(key), str | None):
                raise UserError(f"{key} is {self.raw[key]!r}; it must be a text")
        for key in FLAGS:
            if self.raw.get(key) not in (None, True, False):
                raise UserError(f"{key} is {self.raw[key]!r}; it must be true or false")
        for key in PERCENTS:
            share = self.share(key)
            if share is not None and not (0 <= share <= 1 or (key.startswith("corruptions_mce") and share >= 0)):
                raise UserError(f"{key} is {self.raw[key]!r}; it must be a percentage, as 43.21")
        _number("number_forward_passes", self.raw.get("number_forward_passes"))
        self.eps  # noqa: B018  refuses an unreadable value

    @property
    def eps(self) -> Fraction | None:
        """Radius of the threat; None for corruptions."""
        value = self.raw.get("eps")
        return None if value in _NO_NUMBER else exact(value)

    def share(self, key: str) -> float | None:
        """Return an accuracy of the entry in [0, 1]; None if it has none.

        Args:
            key: name of a percentage, as "autoattack_acc".
        """
        value = _number(key, self.raw.get(key))
        return None if value is None else value / 100

    def to_json(self) -> str:
        """Return the text of the file, as RobustBench writes it."""
        return json.dumps(dict(self.raw), indent=2) + "\n"


def _number(key: str, value: Any) -> float | None:
    if value in _NO_NUMBER:
        return None
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(str(value).removesuffix("%"))
    except ValueError:
        raise UserError(f"{key} is {value!r}; it must be a number") from None


def read_model_info(path: str | Path) -> ModelInfo:
    """Read a file of RobustBench's folder `model_info`.

    Raises:
        UserError: no such file, no JSON object, or a value of a wrong type or range.
    """
    try:
        raw = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path} is a {type(raw).__name__}; a model's entry is a JSON object")
    try:
        return ModelInfo(raw)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
