"""The tables of a results folder, or of a frame of records, as text."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.analysis.caveats import reasons_of_frame, split_warnings
from bench.analysis.frames import results_of
from bench.analysis.leaderboard import leaderboard
from bench.analysis.ranks import rank_ranges_of_summary
from bench.analysis.rows import ROW
from bench.analysis.summary import numbers, summary
from bench.report import footnotes
from bench.report.attack_warnings import warnings
from bench.report.chosen_table import chosen_table
from bench.report.comparison_table import attack_tables, pivot, text_of
from bench.report.files import FORMATS, check_results, current_table
from bench.report.full_table import full_table, narrowed
from bench.report.html import html_table, to_html
from bench.report.latex import to_latex
from bench.report.number_notes import of_numbers
from bench.report.paper import to_paper
from bench.report.plain import to_csv, to_markdown, to_text
from bench.spec.aggregation import M
from defenses.utils.errors import unknown

if TYPE_CHECKING:
    import pandas as pd

    from bench.analysis.results import Results
    from bench.report.table import Table

_WIDTH = 120
_UNKNOWN = "of records alone: certificates and audits are in their results folder, whose table marks † and ‡"


def table(source: str | Path | pd.DataFrame, form: str = "text", *, m: Sequence[int] | None = None) -> str:
    """Return the tables as `purebench table` prints them.

    Args:
        source: a results folder; or a frame of `benchmark` or `load_results`, or rows of it.
        form: "text" (the comparison), "markdown", "latex", "html" (also every row) or "csv" (numbers at full
            precision).
        m: of a frame, the M of Rob(M); None: 5 and 15, as far as there are draws.

    Raises:
        UserError: unknown format, no results there, or a frame of something else.
    """
    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    if isinstance(source, str | Path):
        check_results(Path(source))
        return current_table(Path(source), form)
    results = results_of(source)
    rows = summary(results, m=m)
    if form == "csv":
        return to_csv(_with_warnings(numbers(rows), source))
    compared = _comparison(source, results, rows)
    if form == "text":
        return text_of(compared, _WIDTH)
    full = _full(source, rows, m or M)
    if form == "latex":
        return to_latex([*compared, narrowed(full)])
    tables = [*compared, full]
    return to_html(tables, tables[0].title) if form == "html" else to_markdown(tables)


def leaderboard_table(
    results: str | Path, form: str = "text", *, columns: Sequence[str] = (), sort: str = "worst", digits: int = 1
) -> str:
    """Return the leaderboard of a results folder with chosen columns.

    Args:
        results: the results folder.
        form: "text", "markdown", "csv", "latex", "html", or "paper": LaTeX for a paper, in one column where it fits,
            the best in bold where paired tests say so.
        columns: see `bench.report.chosen_table.COLUMNS`; empty: clean accuracy, worst case, Rob(5), rank and audit,
            those that have something to say.
        sort: the order: one of the columns, "defense" or "board".
        digits: after the point.

    Raises:
        UserError: an unknown format, column or order, too many digits, no results there, or a damaged file.
    """
    writers: dict[str, Callable[[list[Table]], str]] = {
        "text": lambda tables: "\n".join(map(to_text, tables)),
        "markdown": to_markdown,
        "csv": _csv,
        "latex": to_latex,
        "html": lambda tables: to_html(tables, "Leaderboard"),
        "paper": to_paper,
    }
    if form not in writers:
        raise unknown("format", form, writers)
    bold = form != "text"
    return writers[form](chosen_table(leaderboard(results), columns=columns, sort=sort, digits=digits, bold=bold))


def _csv(tables: Sequence[Table]) -> str:
    lines = [row for table in tables for row in ((*table.columns, "threat"), *((*r, table.title) for r in table.rows))]
    head = lines[0]
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([head, *(line for line in lines if line != head)])
    return buffer.getvalue()


def _comparison(frame: pd.DataFrame, results: Results, rows: pd.DataFrame) -> list[Table]:
    """Return the comparison of the defenses of a frame, and the tables of attacks that not all have met.

    Args:
        frame: of `benchmark` or `load_results`.
        results: the same, see `results_of`.
        rows: its summary.
    """
    made = pivot(rows, ranges=rank_ranges_of_summary(results, rows), marked=_reasons(frame))
    made = replace(made, footnotes=(*made.footnotes, *_notes(frame, rows)))
    return [made, *attack_tables(rows, marked=_reasons(frame))]


def notebook_table(frame: pd.DataFrame) -> str:
    """Return the comparison of a frame as HTML for a notebook, and how many rows the frame has."""
    text = f"<p>{len(frame):,} rows, one per image and attack; .head() shows some</p>"
    results = results_of(frame)
    return "".join(map(html_table, _comparison(frame, results, summary(results)))) + text


def _full(frame: pd.DataFrame, rows: pd.DataFrame, m: Sequence[int]) -> Table:
    by_seed = summary(frame, m=m, by_seed=True) if footnotes.has_seeds(rows) else None
    made = full_table(rows, m=m, by_seed=by_seed, marked=_reasons(frame))
    return replace(made, footnotes=(*made.footnotes, *_notes(frame, rows)))


def _reasons(frame: pd.DataFrame) -> dict[str, str]:
    return reasons_of_frame(frame) if "warnings" in frame else {}


def _notes(frame: pd.DataFrame, rows: pd.DataFrame) -> tuple[str, ...]:
    """Return the footnotes of the column "warnings" of `benchmark`; without it, what a frame cannot say."""
    if "warnings" not in frame:
        return (_UNKNOWN,)
    cells = frame.drop_duplicates(list(ROW))[[*ROW, "status", "warnings", "draws_sel"]]
    cells = cells.rename(columns={"draws_sel": "selection"})
    cells = cells.assign(warnings=cells["warnings"].map(lambda text: split_warnings(str(text))[0]))
    return (*footnotes.of_certificates(_reasons(frame)), *warnings(rows, cells), *of_numbers(rows, cells, frame))


def _with_warnings(rows: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """Return a summary with the column "warnings" of the frame's rows, if it has one."""
    if "warnings" not in frame:
        return rows
    texts = frame[[*ROW, "warnings"]].drop_duplicates(list(ROW))
    return rows.merge(texts, on=list(ROW), how="left").fillna({"warnings": ""})
