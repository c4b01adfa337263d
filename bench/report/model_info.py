"""Read and write RobustBench's `model_info` JSON, the published claims of a model."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass, make_dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

from bench.spec.threat import exact
from defenses.utils.errors import UserError
from defenses.utils.json_values import JsonView
from defenses.utils.validation import Flag, Kind, validated

# In the order in which RobustBench writes them.
KEYS: tuple[str, ...] = ("link", "name", "authors", "additional_data", "number_forward_passes", "dataset", "venue")
KEYS += ("architecture", "eps", "clean_acc", "reported", "corruptions_acc", "corruptions_acc_3d", "corruptions_mce")
KEYS += ("corruptions_mce_3d", "autoattack_acc", "external", "footnote", "unreliable")
FLAGS = ("additional_data", "unreliable")
TEXTS = ("link", "name", "authors", "dataset", "venue", "architecture", "footnote")
PERCENTS = tuple(k for k in KEYS if k in ("reported", "external") or k.partition("_")[2].startswith(("acc", "mce")))
_NO_NUMBER = (None, "", "-", "--", "N/A")


def _number(value: object) -> float | None:
    if isinstance(value, bool):
        raise ValueError
    return None if value in _NO_NUMBER else float(str(value).removesuffix("%"))


@functools.cache
def _entry() -> object:
    """Return the dataclass of an entry's known keys, for pydantic."""

    def percentage(most: float) -> object:
        words = "a percentage, as 43.21"
        return Annotated[Any, Kind(words, lambda value: value is None or 0 <= value <= most, _number)]

    kinds: dict[str, object] = {key: percentage(math.inf if "_mce" in key else 100) for key in PERCENTS}
    kinds |= dict.fromkeys(TEXTS, str | None) | dict.fromkeys(FLAGS, Flag | None)
    kinds |= {"number_forward_passes": Annotated[Any, Kind("a number", read=_number)]}
    kinds |= {"eps": Annotated[Any, Kind(make=lambda value: None if value in _NO_NUMBER else exact(value))]}
    return make_dataclass("Entry", [(key, kind, None) for key, kind in kinds.items()])


@dataclass(frozen=True)
class ModelInfo:
    """A model's entry.

    Args:
        raw: the JSON object, with unknown keys too.

    Raises:
        UserError: a value of a wrong type or range.
    """

    raw: JsonView

    def __post_init__(self) -> None:
        validated(_entry(), {key: self.raw[key] for key in KEYS if key in self.raw})

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
        value = _number(self.raw.get(key))
        return None if value is None else value / 100

    def to_json(self) -> str:
        """Return the text of the file, as RobustBench writes it."""
        return json.dumps(dict(self.raw), indent=2) + "\n"


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
        raise error.within(str(path)) from None
