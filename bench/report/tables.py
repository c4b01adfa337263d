"""Write the table files of a results folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.analysis.caveats import failures, labels, uncertified, with_audit
from bench.analysis.claim_files import read_claims
from bench.analysis.ranks import rank_ranges_of_summary
from bench.analysis.reproduction import protocols_of
from bench.analysis.results import read_results
from bench.analysis.summary import numbers, ranked, summary
from bench.report import footnotes
from bench.report.attack_warnings import warnings, with_warnings
from bench.report.comparison_table import attack_tables, pivot, text_of
from bench.report.full_table import full_table, narrowed
from bench.report.html import to_html
from bench.report.latex import to_latex
from bench.report.number_notes import of_numbers
from bench.report.plain import to_csv, to_markdown
from bench.report.protocol_table import protocol_table
from bench.report.row_text import marks_of_names
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
    comparison, texts = table_texts(results_dir, m)
    for name, text in texts.items():
        write_atomic(Path(results_dir) / name, text)
    return comparison


def table_texts(results_dir: str | Path, m: Sequence[int] | None = None) -> tuple[Table, dict[str, str]]:
    """Return the comparison of a results folder, and the contents of its table files by name; nothing is written.

    Args:
        results_dir: the folder.
        m: as of `write_tables`.

    Raises:
        UserError: as of `write_tables`.
    """
    folder = Path(results_dir)
    compared, others, csv = _computed(folder, m)
    tables = [*compared, *others]
    manifest = read_manifest(folder)
    title = str(manifest.get("title") or manifest.get("board") or folder.resolve().name)
    return tables[0], {
        "tables.txt": text_of(compared, _TEXT_WIDTH),
        "tables.csv": csv,
        "tables.md": to_markdown(tables),
        "tables.tex": to_latex([*compared, narrowed(others[0]), *others[1:]]),
        "tables.html": to_html(tables, title, {"tables.csv": "all numbers, not rounded (CSV)"}),
    }


def text_of_width(results_dir: str | Path, width: int) -> str:
    """Return the comparison of a results folder as text for a terminal; nothing is written.

    Args:
        results_dir: the folder.
        width: of the terminal, in characters; headings are wrapped, numbers are not.

    Raises:
        UserError: as of `write_tables`.
    """
    return text_of(_computed(Path(results_dir), None)[0], width, wrap=True)


def _computed(folder: Path, m: Sequence[int] | None) -> tuple[list[Table], list[Table], str]:
    """Return ([comparison, attack tables], [full table, protocols where there are several], CSV) of a folder."""
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
        *footnotes.of_audits(failed),
    )
    by_seed = summary(results, m=m, by_seed=True) if footnotes.has_seeds(frame) else None
    marks = marks_of_names(failed, resumed)
    full = full_table(frame, m=m or M, aggregation=aggregation, by_seed=by_seed, marked=reasons, name_marks=marks)
    ranges = rank_ranges_of_summary(results, frame)
    comparison = pivot(frame, ranges=ranges, marked=reasons, name_marks=marks)
    compared = [replace(comparison, footnotes=(*comparison.footnotes, *notes))]
    compared += attack_tables(frame, marked=reasons, name_marks=marks)
    others = [replace(full, footnotes=(*full.footnotes, *notes))]
    if manifest.get("presets"):
        others.append(protocol_table(protocols_of(results, manifest, read_claims())))
    csv = with_audit(with_warnings(numbers(frame), results.cells, reasons), failed)
    return compared, others, to_csv(csv.assign(dataset=csv["dataset"].map(portable)))


def _runs(cells: pd.DataFrame) -> list[dict[str, object]]:
    """Return the defense, status and run of the cells, each combination once; None for a cell without a run."""
    columns = cells.reindex(columns=["defense", "status", "run"]).drop_duplicates().astype(object)
    return [{str(k): v for k, v in line.items()} for line in columns.where(columns.notna(), None).to_dict("records")]
