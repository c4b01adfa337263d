"""The cells of a board as commands list them: from a board, or from the plan that a results folder stores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.report.files import check_results
from bench.spec.cell import NULLS, Cell, row_of, title_of
from bench.spec.cell_columns import CellColumns
from bench.store.manifest import read_manifest
from defenses.utils.errors import unknown


class PlannedCell(NamedTuple):
    """A cell of a board.

    Args:
        key: of the cell.
        row: see `bench.spec.cell.row_of`.
        label: of the defense.
        seed: of its training; None without one.
        images: number of images.
        attack: name of the attack, or its label where it is read from a folder.
        norm: of the threat.
    """

    key: str
    row: str
    label: str
    seed: int | None
    images: int
    attack: str
    norm: str

    @property
    def title(self) -> str:
        """Return the label of the defense with its training seed."""
        return self.label if self.seed is None else title_of(self.label, self.seed)


def of_cells(cells: Iterable[Cell]) -> list[PlannedCell]:
    """Return the cells of a board."""
    return [
        PlannedCell(
            *(c.key, row_of(c), c.defense.label, c.defense.training_seed),
            *(c.data.stop - c.data.start, c.attack.name, c.threat.norm),
        )
        for c in cells
    ]


def of_folder(folder: Path, defenses: Sequence[str] = (), attacks: Sequence[str] = ()) -> tuple[list[PlannedCell], str]:
    """Return the cells that a results folder stores as its plan, and the name of its board.

    Args:
        folder: the results folder.
        defenses: labels of those that are wanted; empty: all.
        attacks: labels of those that are wanted, beside the null attacks; empty: all.

    Raises:
        UserError: no results folder, or an unknown label.
    """
    from bench.store.reader import read_plan  # imports NumPy

    check_results(folder)
    lines = read_plan(folder / "plan.jsonl")
    labels = {line["defense"]: None for line in lines}, {line["attack"]: None for line in lines}
    for kind, wanted, known in zip(("defense", "attack"), (defenses, attacks), labels, strict=True):
        if strange := [label for label in wanted if label not in known]:
            raise unknown(f"{kind} in {folder}", strange[0], known)
    chosen = [
        line
        for line in lines
        if (not defenses or line["defense"] in defenses)
        and (not attacks or line["attack"] in attacks or line["attack"] in NULLS)
    ]
    return [_of_line(line) for line in chosen], str(read_manifest(folder).get("board", folder.name))


def _of_line(line: CellColumns) -> PlannedCell:
    """Return a cell of plan.jsonl."""
    target = "" if line["targets"] == "none" else f", target {line['targets']}"
    row = f"{line['norm']} {line['eps']}{target} | {line['defense']} | {line['attack']} | {line['view']}"
    seed, attack = line.get("training_seed"), str(line["attack"])
    return PlannedCell(line["key"], row, str(line["defense"]), seed, int(line["images"]), attack, str(line["norm"]))
