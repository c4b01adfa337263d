"""The comparison of defenses: a table with one row per defense."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from bench.analysis.records import CLEAN
from bench.analysis.rows import SETTING
from bench.analysis.summary import WORST
from bench.report import footnotes
from bench.report.format import ABSENT
from bench.report.row_text import NAMES, NO_MARKS, heading, mean_cell, setting_cells, with_mark
from bench.report.table import Table

if TYPE_CHECKING:
    import pandas as pd


def pivot(frame: pd.DataFrame, *, marked: Collection[str] = (), name_marks: Mapping[str, str] = NO_MARKS) -> Table:
    """Return the comparison of the defenses of a summary.

    Args:
        frame: a summary.
        marked: defenses with uncertified exact gradients.
        name_marks: further marks after the name of a defense, see `marks_of_names`.

    Returns:
        Per defense: clean accuracy, the worst case with its interval, the rank, then accuracy under each attack. The
        best worst case stands first, rows without a rank last.
    """
    if frame.empty:
        return Table("Comparison: nothing to compare", ("defense",), ())
    title, differs = heading(frame, "Comparison")
    names = column_names(frame)
    shown = list(dict.fromkeys(names.values()))
    clean = [n for n in shown if n == NAMES[CLEAN]]
    others = [n for n in shown if n not in clean]
    rows: list[tuple[str, ...]] = []
    for part in _by_worst_case(frame):
        lines: list[Any] = list(part.itertuples())
        means = {r: mean_cell(r, "clean" if r.attack == CLEAN else "robust") for r in lines if r.attack != WORST}
        cells = {names[r.attack, r.view]: _with_status(r, mean) for r, mean in means.items()}
        worst = next((r for r in lines if r.attack == WORST), None)
        verdict = [ABSENT, ABSENT] if worst is None else [_with_status(worst, mean_cell(worst)), _rank(worst)]
        defense = str(lines[0].defense)
        head = [*setting_cells(lines[0], differs), with_mark(defense, lines[0], marked) + name_marks.get(defense, "")]
        first, rest = ([cells.get(name, ABSENT) for name in group] for group in (clean, others))
        rows.append((*head, *first, *verdict, *rest))
    headers = [[f"{n}: mean % [95%]" for n in group] for group in (clean, others)]
    columns = (*differs, "defense", *headers[0], "worst case: mean % [95%]", "rank", *headers[1])
    starred = any("*" in cell for row in rows for cell in row[len(differs) + 1 :])
    return Table(title, columns, tuple(rows), footnotes.of_comparison(frame, starred=starred), len(differs) + 1)


def _by_worst_case(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the rows of each defense, the best worst case of a setting first; those without a rank stay in order."""
    settings = {setting: i for i, (setting, _) in enumerate(frame.groupby(list(SETTING), sort=False))}

    def place(part: pd.DataFrame) -> tuple[int, float]:
        ranks = part.loc[part["attack"] == WORST, "strict_rank"].dropna()
        return settings[tuple(part.iloc[0][list(SETTING)])], float(ranks.iloc[0]) if len(ranks) else float("inf")

    return sorted((part for _, part in frame.groupby([*SETTING, "defense"], sort=False)), key=place)


def column_names(frame: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Return column names by attack and view, as short as keeps the rows of each defense apart.

    Args:
        frame: a summary.
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
            names[attack, view] = f"{plain} ({mode if by_mode else view})" if several else plain
    return names


def _with_status(row: Any, text: str) -> str:
    """Return a number with a star if its row is incomplete; without a number the status."""
    if row.status == "ok":
        return text
    reason = str(row.status).split(":")[0]
    return reason if text == ABSENT and reason != "partial" else f"{text}*"


def _rank(row: Any) -> str:
    return ABSENT if str(row.strict_rank) in ("<NA>", "nan", "None") else str(int(row.strict_rank))
