"""Read published subsets of data sets; `published_subsets/published.toml` lists them with their sources."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path

from defenses.utils.errors import UserError, unknown

_FOLDER = Path(__file__).with_name("published_subsets")


@dataclass(frozen=True)
class Subset:
    """A published subset of a data set's test split.

    Args:
        name: name in a board.
        dataset: name of the data set, or a pattern as "imagenet*".
        source: publication.
        first: number of images, from the first; None: `file` lists them.
        file: file of positions, in `published_subsets`.
    """

    name: str
    dataset: str
    source: str
    first: int | None = None
    file: str | None = None

    def positions(self) -> list[int]:
        """Return the positions in the test split, in the published order."""
        if self.file is not None:
            return [int(word) for word in (_FOLDER / self.file).read_text(encoding="ascii").split()]
        assert self.first is not None
        return list(range(self.first))


@lru_cache
def published() -> tuple[Subset, ...]:
    """Return all published subsets."""
    raw = tomllib.loads((_FOLDER / "published.toml").read_text(encoding="utf-8"))
    return tuple(Subset(**entry) for entry in raw["subset"])


def names() -> list[str]:
    """Return the names of all published subsets, each once."""
    return list(dict.fromkeys(s.name for s in published()))


def positions(name: str, dataset: str, split: str) -> list[int]:
    """Return the positions of a subset.

    Args:
        name: one of `names`.
        dataset: name of the data set.
        split: split of the data set.

    Raises:
        UserError: there is no such subset of this split.
    """
    same_name = [s for s in published() if s.name == name]
    if not same_name:
        raise unknown("index list", name, names())
    match = next((s for s in same_name if fnmatch(dataset, s.dataset)), None)
    if match is None or split != "test":
        where = ", ".join(s.dataset.rstrip("*") for s in same_name)
        raise UserError(f'index list "{name}" is defined for the test split of {where}, not for {split} of {dataset}')
    return match.positions()
