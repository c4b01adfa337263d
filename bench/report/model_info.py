"""RobustBench's `model_info` JSON: what it claims of a model, and how that compares with what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defenses.utils.errors import UserError

if TYPE_CHECKING:
    pass

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
_NOTHING = (None, "", "-", "--", "N/A")  # what stands where there is no number


@dataclass(frozen=True)
class ModelInfo:
    """A model's entry; `raw` is the JSON as it is, unknown keys and all, and the numbers are read from it.

    Raises:
        UserError: a value that is not of its kind.
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
        self.eps  # noqa: B018  a value that cannot be read is refused here

    @property
    def eps(self) -> Fraction | None:
        """The radius; None for corruptions."""
        from bench.spec.threat import exact

        value = self.raw.get("eps")
        return None if value in _NOTHING else exact(value)

    def share(self, key: str) -> float | None:
        """An accuracy as a fraction of 1, as "autoattack_acc"; None where there is none."""
        value = _number(key, self.raw.get(key))
        return None if value is None else value / 100

    def to_json(self) -> str:
        """The file's text, as RobustBench writes it."""
        return json.dumps(dict(self.raw), indent=2) + "\n"


def _number(key: str, value: Any) -> float | None:
    if value in _NOTHING:
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
        UserError: no such file, no JSON object, or a value that is not of its kind.
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
