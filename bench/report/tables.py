"""Write the table files of a results folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.analysis.caveats import FAILED_AUDIT, UNCERTIFIED, failures, labels, uncertified, with_audit
from bench.analysis.ranks import rank_ranges_of_summary
from bench.analysis.results import read_results
from bench.analysis.summary import numbers, ranked, summary
from bench.report import footnotes
from bench.report.attack_warnings import warnings, with_warnings
from bench.report.comparison_table import pivot
from bench.report.full_table import full_table
from bench.report.html import to_html
from bench.report.latex import to_latex
from bench.report.number_notes import of_numbers
from bench.report.plain import to_csv, to_markdown, to_text
from bench.spec.aggregation import M, aggregation_of
from bench.store.folder import write_atomic
from bench.store.manifest import read_manifest, resumed_anyway
from defenses.utils.names import portable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from bench.report.table import Table

_TEXT_WIDTH = 120


def write_tables(results_dir: str | Path, *, m: Sequence[int] | None = None) -> Table:
    """Compute all tables of a results folder and write tables.txt, .md, .csv, .tex, .html, each atomically.

    Args:
        results_dir: the folder.
        m: the M of Rob(M); None: those of the board, else 5 and 15.

    Returns:
        The comparison, for printing.

    Raises:
        UserError: no results there, a damaged file, or the folder cannot be written.
    """
    folder = Path(results_dir)
    tables, csv = _computed(folder, m)
    manifest = read_manifest(folder)
    title = str(manifest.get("title") or manifest.get("board") or folder.resolve().name)
    write_atomic(folder / "tables.txt", to_text(tables[0], _TEXT_WIDTH))
    write_atomic(folder / "tables.csv", csv)
    write_atomic(folder / "tables.md", to_markdown(tables))
    write_atomic(folder / "tables.tex", to_latex(tables))
    write_atomic(folder / "tables.html", to_html(tables, title, {"tables.csv": "all numbers, not rounded (CSV)"}))
    return tables[0]


def text_of_width(results_dir: str | Path, width: int) -> str:
    """Return the comparison of a results folder as text for a terminal; nothing is written.

    Args:
        results_dir: the folder.
        width: of the terminal, in characters; headings are wrapped, numbers are not.

    Raises:
        UserError: as of `write_tables`.
    """
    return to_text(_computed(Path(results_dir), None)[0][0], width, wrap=True)


def _computed(folder: Path, m: Sequence[int] | None) -> tuple[list[Table], str]:
    """Return ([comparison, full table], CSV) of a results folder."""
    results, manifest = read_results(folder), read_manifest(folder)
    aggregation = aggregation_of(manifest)
    m = aggregation.m if m is None else m
    failed = failures(folder, manifest)
    frame = ranked(summary(results, m=m), without=labels(failed))
    reasons, resumed = uncertified(folder, results.cells, manifest), resumed_anyway(manifest)
    notes = (
        *footnotes.of_preset(manifest),
        *footnotes.of_data(manifest),
        *footnotes.of_sequential(aggregation, results.records),
        *footnotes.of_certificates(reasons),
        *footnotes.of_resumed(resumed),
        *warnings(frame, results.cells),
        *of_numbers(frame, results.cells, results.records),
        *footnotes.mixed(_runs(results.cells), manifest),
    )
    by_seed = summary(results, m=m, by_seed=True) if footnotes.has_seeds(frame) else None
    full = full_table(frame, m=m or M, aggregation=aggregation, by_seed=by_seed, marked=reasons)
    comparison = pivot(frame, marked=reasons)
    ranges = footnotes.of_ranks(rank_ranges_of_summary(results, frame))
    pair = (replace(comparison, footnotes=(*comparison.footnotes, *ranges)), full)
    tables = [marked(flagged(replace(t, footnotes=(*t.footnotes, *notes)), failed), resumed) for t in pair]
    csv = with_audit(with_warnings(numbers(frame), results.cells, reasons), failed)
    return tables, to_csv(csv.assign(dataset=csv["dataset"].map(portable)))


def _runs(cells: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the defense, status and run of the cells, each combination once; None for a cell without a run."""
    columns = cells.reindex(columns=["defense", "status", "run"]).drop_duplicates().astype(object)
    return [{str(k): v for k, v in line.items()} for line in columns.where(columns.notna(), None).to_dict("records")]


def marked(table: Table, resumed: Mapping[str, str]) -> Table:
    """Return a table that marks the defenses whose results were resumed although they may be of another model.

    Args:
        table: a table with a column "defense".
        resumed: reasons by label.
    """
    if not resumed or "defense" not in table.columns:
        return table
    at = table.columns.index("defense")

    def shown(name: str) -> str:
        plain = name.removesuffix(f" {FAILED_AUDIT}").removesuffix(f" {UNCERTIFIED}")
        return f"{name} {footnotes.RESUMED}" if plain in resumed else name

    return replace(table, rows=tuple((*r[:at], shown(r[at]), *r[at + 1 :]) for r in table.rows))


def flagged(table: Table, failed: Mapping[str, tuple[str, ...]]) -> Table:
    """Return a table that marks the defenses that fail their audit, with footnotes of the failed checks.

    Args:
        table: a table with a column "defense".
        failed: names of the failed checks by title; a mean over trainings is marked if one of them fails.
    """
    if not failed or "defense" not in table.columns:
        return table
    at, marked = table.columns.index("defense"), failed.keys() | labels(failed)

    def shown(name: str) -> str:
        return f"{name} {FAILED_AUDIT}" if name.removesuffix(f" {UNCERTIFIED}") in marked else name

    rows = tuple((*r[:at], shown(r[at]), *r[at + 1 :]) for r in table.rows)
    text = "fails the audit, so its numbers have no rank"
    notes = tuple(f"{FAILED_AUDIT} {title} {text}: {', '.join(names)}" for title, names in failed.items())
    return replace(table, rows=rows, footnotes=(*table.footnotes, *notes))
