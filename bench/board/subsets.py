"""Subsets of published evaluations, by name; `bench/subsets/published.toml` lists them with their sources."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path

from defenses.utils.errors import UserError

_FOLDER = Path(__file__).with_name("published_subsets")


@dataclass(frozen=True)
class Subset:
    """A published subset of a data set's test split.

    Args:
        name: as in a board.
        dataset: a name, or a pattern as "imagenet*".
        source: where the list comes from.
        first: it is the first so many images; None: `file` lists them.
        file: of positions, in `bench/subsets`.
    """

    name: str
    dataset: str
    source: str
    first: int | None = None
    file: str | None = None

    def positions(self) -> list[int]:
        """Positions in the test split, in the order published."""
        if self.file is not None:
            return [int(word) for word in (_FOLDER / self.file).read_text(encoding="ascii").split()]
        assert self.first is not None
        return list(range(self.first))


@lru_cache
def published() -> tuple[Subset, ...]:
    """All of them."""
    raw = tomllib.loads((_FOLDER / "published.toml").read_text(encoding="utf-8"))
    return tuple(Subset(**entry) for entry in raw["subset"])


def names() -> list[str]:
    """Their names, each once."""
    return list(dict.fromkeys(s.name for s in published()))


def positions(name: str, dataset: str, split: str) -> list[int]:
    """A subset's positions.

    Args:
        name: one of `names`.
        dataset: name of the data set.
        split: of it.

    Raises:
        UserError: the publication used no such subset of this split.
    """
    found = [s for s in published() if s.name == name]
    match = next((s for s in found if fnmatch(dataset, s.dataset)), None)
    if match is None or split != "test":
        where = ", ".join(s.dataset for s in found)
        raise UserError(f'index list "{name}" is defined for the test split of {where}, not for {split} of {dataset}')
    return match.positions()
