"""The full table: every row and aggregation of a summary."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.analysis.rows import ROW
from bench.analysis.scores import bounds_of
from bench.analysis.summary import REFUSED, WORST
from bench.report import footnotes
from bench.report.format import ABSENT, count, interval, number
from bench.report.row_text import NAMES, NO_MARKS, heading, mean_cell, setting_cells, with_mark
from bench.report.table import Table
from bench.spec.aggregation import Aggregation, M
from bench.spec.cell import title_of

if TYPE_CHECKING:
    import pandas as pd

_ALL_DRAWS = Aggregation()
_ROBUST, _EVALUATIONS = "robust: mean % [95%]", "evaluations per image"
_OF_PAPERS = 6  # columns
_NOTED = ("refused", "majority vote", "mean logit", "attack success", "median size")  # columns that papers do without
_Show = Callable[[object], str]  # a row of a summary as the text of a cell


def full_table(
    frame: pd.DataFrame,
    *,
    m: Sequence[int] = M,
    aggregation: Aggregation = _ALL_DRAWS,
    by_seed: pd.DataFrame | None = None,
    marked: Collection[str] = (),
    name_marks: Mapping[str, str] = NO_MARKS,
) -> Table:
    """Return every row and aggregation of a summary.

    Args:
        frame: a summary.
        m: the M of Rob(M) in it.
        aggregation: number of draws of a majority vote and of a mean logit.
        by_seed: its summary by seed; None: single seeds are not shown.
        marked: defenses with uncertified exact gradients.
        name_marks: marks after the title of a defense, see `marks_of_names`.
    """
    if frame.empty:
        return Table("All rows: none", ("defense",), ())
    title, differs = heading(frame, "All rows")
    columns = _columns(frame, m)
    lines = _lines(frame, by_seed)
    rows = tuple(
        (
            *setting_cells(r, differs),
            *(name + name_marks.get(name, ""), NAMES.get(r.attack, str(r.attack))),
            "" if r.attack in NAMES else with_mark(str(r.view), r, marked if r.gradient == "exact" else ()),
            *(show(r) for show in columns.values()),
        )
        for name, r in lines
    )
    strong = frozenset(i for i, (name, r) in enumerate(lines) if r.attack == WORST and name == r.defense)
    header = (*differs, "defense", "attack", "attack view", *columns)
    notes = footnotes.of_all_rows(frame, aggregation)
    return Table(title, header, rows, notes, len(differs) + 3, tail=1, strong=strong)


def narrowed(full: Table) -> Table:
    """Return the full table for a paper: the columns that name a row, then what is most asked for, six in all.

    Names come first, so that of a board of several threats fewer numbers fit; where there is no number, the status says
    why.

    Args:
        full: from `full_table`.
    """
    if not full.rows:
        return full
    at = {name: place for place, name in enumerate(full.columns)}
    submissions = [name for name in full.columns if name.startswith("Rob(")]
    wanted = [name for name in (_ROBUST, *submissions[:1], _EVALUATIONS) if name in at]
    kept = [*full.columns[: full.left], *wanted][: max(_OF_PAPERS, full.left + 1)]
    robust, status = at[_ROBUST], at["status"]
    rows = tuple(
        tuple(
            row[status].split(":")[0] if at[name] == robust and row[robust] == ABSENT else row[at[name]]
            for name in kept
        )
        for row in full.rows
    )
    notes = (*(note for note in full.footnotes if not note.startswith(_NOTED)), "all columns are in tables.csv")
    return replace(full, columns=tuple(kept), rows=rows, footnotes=notes, tail=0)


def _columns(frame: pd.DataFrame, m: Sequence[int]) -> dict[str, _Show]:
    """Return the columns by header, without shares that no row has."""
    shares = {f"Rob({i}): unbiased %": f"rob_m{i}" for i in m} | {"majority vote %": "majority"}
    shares["mean logit %"] = "mean_logit"
    if (frame["rejected_mean"] > 0).any():
        shares = dict(zip(("refused: mean %", "right or refused: mean %"), REFUSED, strict=True)) | shares
    shares = {header: name for header, name in shares.items() if frame[name].notna().any()}
    return {
        "images (planned)": lambda r: f"{r.n_images} ({r.planned})",
        "draws": lambda r: str(r.draws) if r.draws else ABSENT,
        "clean: mean % [95%]": lambda r: mean_cell(r, "clean"),
        _ROBUST: mean_cell,
        **{header: _share(name) for header, name in shares.items()},
        "attack success % [95%] (newly wrong / originally right)": _success_rate,
        "median size [95%] (originally right)": _median,
        _EVALUATIONS: lambda r: number(r.evaluations_per_image),
        "queries per image": lambda r: number(r.queries_per_image),
        "seconds per image": lambda r: number(r.seconds_per_image, 3),
        "budget": lambda r: str(r.budget),
        "status": lambda r: str(r.status),
    }


def _share(name: str) -> _Show:
    """Return a function that shows a share with its interval."""
    return lambda row: interval(*(getattr(row, column) for column in (name, *bounds_of(name))))


def _success_rate(row: Any) -> str:
    if math.isnan(row.asr):
        return ABSENT
    return f"{_share('asr')(row)} ({count(row.asr_newly_wrong)}/{count(row.asr_originally_correct)})"


def _median(row: Any) -> str:
    """Return the median size with its interval and number of images."""
    name = "median_perturbation"
    size, low, high = (number(getattr(row, column)) for column in (name, *bounds_of(name)))
    return ABSENT if size == ABSENT else f"{size} [{low}, {high}] ({count(row.median_perturbation_images)})"


def _lines(frame: pd.DataFrame, by_seed: pd.DataFrame | None) -> list[tuple[str, Any]]:
    """Return (label of the defense, row), each mean over training seeds followed by the rows of its seeds."""
    of_seeds: dict[tuple[object, ...], list[tuple[str, object]]] = {}
    rows: list[Any] = list(frame.itertuples())
    seed_rows: list[Any] = [] if by_seed is None else list(by_seed.itertuples())
    for r in seed_rows:
        name = title_of(r.defense, r.training_seed)
        of_seeds.setdefault(tuple(getattr(r, c) for c in ROW), []).append((name, r))
    lines: list[tuple[str, object]] = []
    for r in rows:
        lines += [(str(r.defense), r), *(of_seeds.get(tuple(getattr(r, c) for c in ROW), []) if r.n_seeds > 1 else [])]
    return lines
