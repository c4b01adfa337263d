"""Warnings of the attacks that ran: as footnotes where they bear on a worst case, and as a column of a CSV."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bench.analysis.caveats import CERTIFICATE, join_warnings
from bench.analysis.rows import ROW, SETTING
from bench.analysis.summary import WORST
from bench.attacks.budgets import small_search
from bench.spec.cell import NO_GRADIENT, NULLS

if TYPE_CHECKING:
    import pandas as pd

_MAY_FALL = "no other attack is as strong there, so the worst case may be lower"
_NAMED = 4  # defenses in one footnote


def warnings(frame: pd.DataFrame, cells: pd.DataFrame) -> tuple[str, ...]:
    """Return the warnings of the attacks that ran and the notes of single cells, as footnotes that name their rows.

    A small budget, or a greedy search, is told where it may change the worst case: of the strongest attack on a
    defense, if no attack without a warning is as strong. The column "warnings" of the CSV has all of them.

    Args:
        frame: a summary.
        cells: see `load_cells`.
    """
    ran = cells[cells["status"] == "ok"]
    texts: dict[tuple[str, str], dict[str, None]] = {}  # by warning, the rows that have it
    warned = _by_row(ran, "warnings")
    decisive = _decisive(frame, warned)
    for row, of_row in warned.items():
        defense, attack = _named(row, "defense"), _named(row, "attack")
        for text in of_row:
            if not small_search(text):
                texts.setdefault((attack, text), {})[defense] = None
            elif row in decisive:
                texts.setdefault((attack, f"{text}; {_MAY_FALL}"), {})[defense] = None
    for row, of_row in _by_row(ran, "notes").items():
        for text in of_row:
            texts.setdefault((_named(row, "attack"), text), {})[_named(row, "defense")] = None
    return tuple(f"{attack} on {listed(list(defenses))}: {text}" for (attack, text), defenses in texts.items())


def with_warnings(frame: pd.DataFrame, cells: pd.DataFrame, uncertified: Mapping[str, str]) -> pd.DataFrame:
    """Return the summary with a column "warnings" on the attack and gradients of each row: a CSV has no footnotes.

    Args:
        frame: a summary, or records.
        cells: its cells, see `load_cells`.
        uncertified: reasons by defense with uncertified exact gradients.
    """
    texts = _by_row(cells[cells["status"] == "ok"], "warnings")
    exact = frame["gradient"].eq("exact") & ~frame["view"].isin(NO_GRADIENT)
    for row, is_exact, defense in zip(_rows(frame), exact, frame["defense"], strict=True):
        if is_exact and (reason := uncertified.get(defense)):
            texts.setdefault(row, {})[f"{CERTIFICATE}{reason}"] = None
    return frame.assign(warnings=[join_warnings(texts.get(row, ())) for row in _rows(frame)])


def _decisive(frame: pd.DataFrame, warned: Mapping[tuple[str, ...], Mapping[str, None]]) -> set[tuple[str, ...]]:
    """Return the strongest row of each defense and setting, unless one without a warning is as strong."""
    attacks = frame[frame["attack"].ne(WORST) & ~frame["attack"].isin(NULLS) & ~frame["seed_known"]]
    attacks = attacks[attacks["robust_mean"].notna()]
    strongest: dict[tuple[str, ...], tuple[float, bool, tuple[str, ...]]] = {}
    groups = [tuple(row) for row in attacks[["defense", *SETTING]].astype(str).itertuples(index=False)]
    for group, row, robust in zip(groups, _rows(attacks), attacks["robust_mean"], strict=True):
        this = (float(robust), row in warned, row)
        strongest[group] = min(strongest.get(group, this), this)
    return {row for _, _, row in strongest.values()}


def _by_row(cells: pd.DataFrame, column: str) -> dict[tuple[str, ...], dict[str, None]]:
    """Return the texts of a column of lists, by table row."""
    texts: dict[tuple[str, ...], dict[str, None]] = {}
    if column in cells:
        some = cells[cells[column].map(bool) & cells[column].notna()]
        for row, of_cell in zip(_rows(some), some[column], strict=True):
            texts.setdefault(row, {}).update(dict.fromkeys(of_cell))
    return texts


def _rows(frame: pd.DataFrame) -> list[tuple[str, ...]]:
    """Return the table row of each line, as the values of `ROW`."""
    return list(zip(*(frame[name].astype(str) for name in ROW), strict=True))


def listed(names: list[str]) -> str:
    """Return the first names, and how many more there are."""
    rest = len(names) - _NAMED
    return ", ".join(names) if rest <= 0 else f"{', '.join(names[:_NAMED])} and {rest} more"


def _named(row: tuple[str, ...], name: str) -> str:
    return row[ROW.index(name)]
