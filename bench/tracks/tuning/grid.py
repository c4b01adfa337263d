"""Grids of deployment parameters, and the board that measures their candidates."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.board.board import Board
from bench.board.load import read_board
from defenses.utils.errors import UserError
from defenses.utils.json_values import Json, JsonView
from defenses.utils.text import file_name
from defenses.zoo.cards import card

_LARGEST = 500  # candidates


@dataclass(frozen=True)
class Grid:
    """Candidates for the deployment of a defense.

    Args:
        defense: name of a registered defense.
        dataset: name of the data set.
        values: for each parameter the values to try.
        eps: radius of the transfer, as "8/255".
        fixed: parameters of all candidates.
    """

    defense: str
    dataset: str
    values: Mapping[str, Sequence[Any]]
    eps: str
    fixed: Mapping[str, object]

    def candidates(self) -> list[Json]:
        """Return the parameters of every candidate, the last parameter varying fastest."""
        names = list(self.values)
        return [dict(zip(names, chosen, strict=True)) for chosen in itertools.product(*self.values.values())]

    def board(self, *, indices: str, draws: int, seed: int, block: int, roots: Mapping[str, Path | None]) -> Board:
        """Return the board of all candidates on validation images: clean, uniform noise, and a transfer.

        Args:
            indices: index list of the validation images.
            draws: held-out draws.
            seed: of attacks and draws.
            block: images of a cell.
            roots: `weights_root` and `data_root`.

        Raises:
            UserError: unknown parameter, a value of another kind, no weights.
        """
        name = file_name(f"tune-{self.defense}-{self.dataset}")
        raw: Json = {
            "name": name,
            "title": f"Candidates for {self.defense} on {self.dataset}, validation images",
            "dataset": self.dataset,
            "split": "validation",
            "indices": indices,
            "seed": seed,
            "block": block,
            "threat": {"norm": "Linf", "eps": self.eps},
            "verdict": {"draws": draws, "selection": 1},
            "nulls": ["none", "uniform", "transfer"],
            "attack": [{"name": "bench:transfer"}],  # a board has one; it is taken off below
            "defense": [
                {"name": self.defense, "label": label(candidate), "params": {**self.fixed, **candidate}}
                for candidate in self.candidates()
            ],
        }
        return replace(
            read_board(raw, name, weights_root=roots["weights_root"], data_root=roots["data_root"]), attacks=()
        )


def label(candidate: JsonView) -> str:
    """Return the name of a candidate in tables, as "sigma=1/4 steps=10"."""
    return " ".join(f"{name}={value}" for name, value in candidate.items())


def grid_of(
    defense: str,
    dataset: str,
    *,
    values: Mapping[str, object] | None = None,
    eps: str | None = None,
    fixed: Mapping[str, object] | None = None,
) -> Grid:
    """Return a grid; what is left out is that of the defense's card for the data set.

    Args:
        defense: name of a registered defense.
        dataset: name of the data set.
        values: for each parameter one value or a list of them.
        eps: radius of the transfer, as "8/255".
        fixed: parameters of all candidates.

    Raises:
        UserError: unknown defense, no grid or radius, an empty one, or one too large.
    """
    entry = card(defense).tune.get(dataset, {})
    grid = dict(values or entry.get("grid", {}))
    if not grid:
        parameters = ", ".join(card(defense).parameters)
        raise UserError(
            f'the card of "{defense}" has no grid for {dataset}; give one, as --grid KEY=VALUE,VALUE (parameters: '
            f"{parameters})"
        )
    eps = eps or entry.get("eps")
    if eps is None:
        raise UserError(f'the card of "{defense}" has no eps for {dataset}; give it, as --eps 8/255')
    listed = {name: list(value) if isinstance(value, list | tuple) else [value] for name, value in grid.items()}
    for name, choices in listed.items():
        if not choices:
            raise UserError(f"the grid has no value of {name}; give at least one, as --grid {name}=1,2")
        if name in (fixed or {}):
            raise UserError(f"{name} is in the grid and fixed by --set; leave one out")
    made = Grid(defense, dataset, listed, eps, dict(fixed or {}))
    if (count := len(made.candidates())) > _LARGEST:
        raise UserError(f"the grid has {count} candidates; {_LARGEST} are the most")
    return made
