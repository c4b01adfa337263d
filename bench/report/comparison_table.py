"""The comparison of defenses: a table with one row per defense, and tables of the attacks that not all have met."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import pandas as pd

from bench.analysis.ranks import RankRanges
from bench.analysis.records import CLEAN
from bench.analysis.rows import SETTING
from bench.analysis.summary import WORST
from bench.report import footnotes
from bench.report.attack_warnings import listed
from bench.report.format import ABSENT, rank_range
from bench.report.plain import to_text
from bench.report.row_text import NAMES, NO_MARKS, heading, mean_cell, setting_cells, with_mark
from bench.report.table import Table

_NO_RANGES: RankRanges = MappingProxyType({})


def pivot(
    frame: pd.DataFrame,
    *,
    ranges: RankRanges = _NO_RANGES,
    marked: Collection[str] = (),
    name_marks: Mapping[str, str] = NO_MARKS,
) -> Table:
    """Return the comparison of the defenses of a summary.

    Args:
        frame: a summary.
        ranges: of ranks, see `bench.analysis.ranks.rank_ranges_of_summary`; a defense without one has no rank.
        marked: defenses with uncertified exact gradients.
        name_marks: further marks after the name of a defense, see `marks_of_names`.

    Returns:
        Per defense: clean accuracy, the worst case with its interval, its range of ranks, then accuracy under each
        attack that all defenses of the summary were to meet; `attack_tables` has the other attacks. The best worst case
        stands first, rows without a rank last.
    """
    if frame.empty:
        return Table("Comparison: nothing to compare", ("defense",), ())
    title, differs = heading(frame, "Comparison")
    lines = _lines(frame, marked, name_marks)
    shared = _shared(lines)
    first, rest = ([n for n in shared if (n == NAMES[CLEAN]) == clean] for clean in (True, False))
    rows = []
    for line in lines:
        of_setting = ranges.get(tuple(getattr(line.row, name) for name in SETTING), {})
        rank = rank_range(*of_setting[line.row.defense]) if line.row.defense in of_setting else ABSENT
        verdict = [ABSENT if line.worst is None else _with_status(line.worst), rank]
        before, after = ([line.cells[n] for n in names] for names in (first, rest))
        rows.append((*setting_cells(line.row, differs), line.name, *before, *verdict, *after))
    columns = (*map(_header, first), "worst case: mean % [95%]", "rank", *map(_header, rest))
    starred = any("*" in cell for row in rows for cell in row[len(differs) + 1 :])
    starred |= any("*" in cell for line in lines for cell in line.cells.values())
    notes = (*footnotes.of_comparison(frame, starred=starred), *footnotes.of_ranks(ranges))
    return Table(title, (*differs, "defense", *columns), tuple(rows), notes, len(differs) + 1)


def attack_tables(
    frame: pd.DataFrame, *, marked: Collection[str] = (), name_marks: Mapping[str, str] = NO_MARKS
) -> list[Table]:
    """Return accuracy under the attacks that some defenses alone were to meet: a table for those that met the same.

    Args:
        frame: a summary.
        marked: see `pivot`.
        name_marks: see `pivot`.

    Returns:
        A row per defense, as in `pivot`; of fewer defenses than attacks, a row per attack. No cell is empty: what was
        planned and has no number says why.
    """
    lines = _lines(frame, marked, name_marks)
    shared = _shared(lines)
    families: dict[tuple[str, ...], list[_Line]] = {}
    for line in lines:
        attacks = tuple(name for name in line.cells if name not in shared)
        families.setdefault(tuple(sorted(attacks)), []).append(line)
    return [_of_family(frame, members, shared) for attacks, members in families.items() if attacks]


def _of_family(frame: pd.DataFrame, members: Sequence[_Line], shared: Collection[str]) -> Table:
    """Return the accuracy of defenses under the attacks that they were to meet, without the shared ones."""
    defenses = list(dict.fromkeys(str(line.row.defense) for line in members))
    of_all = pd.concat([frame.loc[line.rows] for line in members])
    title, differs = heading(of_all, f"Attacks on {listed(defenses)}")
    names = [name for name in members[0].cells if name not in shared]
    heads = [[*setting_cells(line.row, differs), line.name] for line in members]
    cells = [[line.cells[name] for name in names] for line in members]
    if len(members) < len(names):
        columns = ("attack", *(_header(", ".join(reversed(head))) for head in heads))
        return Table(title, columns, tuple(zip(names, *cells, strict=True)))
    rows = tuple((*head, *row) for head, row in zip(heads, cells, strict=True))
    return Table(title, (*differs, "defense", *map(_header, names)), rows, left=len(differs) + 1)


def text_of(tables: Sequence[Table], width: int, *, wrap: bool = False) -> str:
    """Return the comparison and its attack tables as text, with the notes at the end.

    Args:
        tables: of `pivot`, then of `attack_tables`.
        width: in characters, see `to_text`.
        wrap: see `to_text`.
    """
    notes = tables[0].footnotes
    *before, last = (replace(tables[0], footnotes=()), *tables[1:])
    return "\n".join(to_text(t, width, wrap=wrap) for t in (*before, replace(last, footnotes=notes)))


@dataclass(frozen=True)
class _Line:
    """A defense in a setting.

    Args:
        row: its first row of the summary.
        rows: labels of all its rows.
        name: with its marks.
        cells: text by column of the attacks that it was to meet, in table order.
        worst: the row of its worst case; None without one.
    """

    row: Any
    rows: list[Any]
    name: str
    cells: Mapping[str, str]
    worst: Any


def _lines(frame: pd.DataFrame, marked: Collection[str], name_marks: Mapping[str, str]) -> list[_Line]:
    """Return the defenses of a summary, the best worst case of a setting first."""
    names = column_names(frame)
    order = {name: at for at, name in enumerate(dict.fromkeys(names.values()))}
    lines = []
    for part in _by_worst_case(frame):
        rows: list[Any] = list(part.itertuples())
        texts = {names[r.attack, r.view]: _with_status(r) for r in rows if r.attack != WORST}
        worst = next((r for r in rows if r.attack == WORST), None)
        name = with_mark(str(rows[0].defense), rows[0], marked) + name_marks.get(str(rows[0].defense), "")
        cells = {name: texts[name] for name in sorted(texts, key=order.__getitem__)}
        lines.append(_Line(rows[0], list(part.index), name, cells, worst))
    return lines


def _shared(lines: Sequence[_Line]) -> list[str]:
    """Return the attacks that all defenses were to meet, in table order."""
    return [name for name in lines[0].cells if all(name in line.cells for line in lines)] if lines else []


def _header(name: str) -> str:
    return f"{name}: mean % [95%]"


def _by_worst_case(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the rows of each defense, the best worst case of a setting first; those without a rank stay in order."""
    settings = {setting: i for i, (setting, _) in enumerate(frame.groupby(list(SETTING), sort=False))}

    def place(part: pd.DataFrame) -> tuple[int, float]:
        ranks = part.loc[part["attack"] == WORST, "strict_rank"].dropna()
        return settings[tuple(part.iloc[0][list(SETTING)])], float(ranks.iloc[0]) if len(ranks) else float("inf")

    return sorted((part for _, part in frame.groupby([*SETTING, "defense"], sort=False)), key=place)


def column_names(frame: pd.DataFrame, words: Callable[[str], str] = str) -> dict[tuple[str, str], str]:
    """Return column names by attack and view, as short as keeps the rows of each defense apart.

    Args:
        frame: a summary.
        words: how a view is shown.
    """
    names: dict[tuple[str, str], str] = {}
    by_attack: dict[str, list[tuple[Any, ...]]] = {}
    for row in frame.itertuples():
        if row.attack != WORST:
            group = tuple(getattr(row, name) for name in (*SETTING, "defense"))
            by_attack.setdefault(str(row.attack), []).append((group, str(row.view), str(row.view).split(",")[0]))
    for attack, rows in by_attack.items():
        several = len({group for group, _, _ in rows}) < len(rows)
        by_mode = len({(group, mode) for group, _, mode in rows}) == len(rows)
        plain = NAMES.get(attack, attack)
        for _, view, mode in rows:
            names[attack, view] = f"{plain} ({words(mode if by_mode else view)})" if several else plain
    return names


def _with_status(row: Any) -> str:
    """Return the mean of a row, with a star if it is incomplete; without a number the status."""
    text = mean_cell(row, "clean" if row.attack == CLEAN else "robust")
    if row.status == "ok":
        return text
    reason = str(row.status).split(":")[0]
    return reason if text == ABSENT and reason != "partial" else f"{text}*"
