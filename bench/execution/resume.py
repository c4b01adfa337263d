"""Choose the stored results that a run may take over: those of today's code and files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.execution.sources import Sources, is_own_data, problem_of, without_code
from bench.spec.cell import Cell
from bench.store.parts import CellRecord
from defenses.utils.text import counted


@dataclass
class Resumable:
    """Stored results of the cells of a board.

    Args:
        lines: those that hold, by key.
        outdated: those of the same key that do not, by key.
        notes: lines about the others, for the user.
        resumed: reasons by label of the defenses whose results are taken although they may be of another model.
    """

    lines: dict[str, CellRecord]
    outdated: dict[str, CellRecord] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    resumed: dict[str, str] = field(default_factory=dict)


def resumable(cells: Sequence[Cell], lines: Mapping[str, CellRecord], *, anyway: bool = False) -> Resumable:
    """Return the stored results of cells that hold.

    Args:
        cells: all cells of a board.
        lines: stored lines by key.
        anyway: take results over although what they depend on is not known completely.
    """
    found, sources = Resumable(dict(lines)), Sources()
    earlier: Counter[str] = Counter()
    unidentified: Counter[tuple[str, str]] = Counter()
    for cell in cells:
        line = lines.get(cell.key)
        if line is None or not line.get("sources"):
            continue
        if file := sources.outdated(cell, line):
            earlier[file] += 1
        elif (problem := problem_of(line)) and not anyway:
            unidentified[cell.defense.label, problem] += 1
        else:
            found.resumed |= {cell.defense.label: problem} if problem else {}
            continue
        found.outdated[cell.key] = found.lines.pop(cell.key)
    earlier += _of_other_keys(cells, lines, sources)
    found.notes = [f"{counted(n, 'cell')} finished for an earlier {file}" for file, n in sorted(earlier.items())]
    found.notes += [
        f"{counted(n, 'cell')} of {label} finished, but not resumed: it cannot be identified ({problem}); "
        "add --resume-anyway to take them over"
        for (label, problem), n in sorted(unidentified.items())
    ]
    return found


def _of_other_keys(cells: Sequence[Cell], lines: Mapping[str, CellRecord], sources: Sources) -> Counter[str]:
    """Return the numbers of results, by file, that are of cells but for earlier code or data."""
    planned = {cell.key for cell in cells}
    own = [cell for cell in cells if cell.key not in lines]
    of_user = [cell for cell in own if sources.plugins(cell) or is_own_data(cell.data.name)]
    missing = {without_code(cell.identity()): cell for cell in of_user}
    files: Counter[str] = Counter()
    for key, line in lines.items() if missing else ():
        if key in planned or line["status"] == "error" or "identity" not in line:
            continue
        cell = missing.pop(without_code(line["identity"]), None)
        if cell is not None:
            files[sources.earlier_file(cell, line)] += 1
    return files
