"""Summaries as tables for people: the comparison of defenses, the full table, and the files of a results folder."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.analysis.caveats import FAILED_AUDIT, UNCERTIFIED, failures, labels, uncertified, with_audit
from bench.analysis.results import CLEAN, NULL, read_results
from bench.analysis.rows import ROW, SETTING
from bench.analysis.scores import bounds_of
from bench.analysis.summary import REFUSED, WORST, numbers, ranked, summary
from bench.report import footnotes
from bench.report.table import Table
from bench.spec.aggregation import Aggregation, M
from bench.spec.cell import KNOWN

if TYPE_CHECKING:
    import pandas as pd

    from bench.report.table import Table

__all__ = ["full_table", "percent", "pivot", "summary", "write_tables"]

_NAMES = {CLEAN: "clean images", NULL: "uniform noise"}
_NAMES |= {f"{attack}{KNOWN}": f"{name}{KNOWN}" for attack, name in _NAMES.items()}
_ABSENT = "–"
_ALL_DRAWS = Aggregation()
_TEXT_WIDTH = 120


def percent(value: float) -> str:
    """A share in percent with two decimals; a dash where it is not known."""
    return _ABSENT if math.isnan(value) else f"{100 * value:.2f}"


def _mean(row: Any, name: str) -> str:
    """A mean, with its spread over training seeds where there are several."""
    sd = getattr(row, f"{name}_sd_seeds")
    return percent(getattr(row, f"{name}_mean")) + ("" if math.isnan(sd) else f" ± {percent(sd)}")


def _interval(row: Any, name: str = "robust") -> str:
    if math.isnan(getattr(row, f"{name}_mean")):
        return _ABSENT
    mean, _, sd = _mean(row, name).partition(" ± ")
    spread = f" ± {sd} ({row.n_seeds} seeds)" if sd else ""
    low, high = (percent(getattr(row, f"{name}_{end}")) for end in ("low", "high"))
    return f"{mean} [{low}, {high}]{spread}"


def _threat(row: Any) -> str:
    return f"{row.norm} {row.eps}" + ("" if row.targets == "none" else f", target {row.targets}")


def _heading(frame: pd.DataFrame, what: str) -> tuple[str, tuple[str, ...]]:
    """The title, with what all rows share; and the parts of the setting that differ, as columns."""
    rows: list[Any] = list(frame.itertuples())
    first = rows[0]
    parts = {
        "data": (lambda r: f"{r.dataset} {r.split} ({r.indices}, {r.planned} images)"),
        "threat": _threat,
    }
    differs = tuple(name for name, show in parts.items() if len({show(r) for r in rows}) > 1)
    shared = [show(first) for name, show in parts.items() if name not in differs]
    budgets = sorted({b for text in frame["budget"] for b in str(text).split("+")} - {"full", ""})
    shared += [f"{b} budget" for b in budgets]
    return ": ".join(p for p in (what, ", ".join(shared)) if p), differs


def _setting_cells(row: Any, differs: Sequence[str]) -> list[str]:
    shown = {"data": f"{row.dataset} {row.split} ({row.indices})", "threat": _threat(row)}
    return [shown[name] for name in differs]


def _column_names(frame: pd.DataFrame) -> dict[tuple[str, str], str]:
    """What the comparison calls an attack under a view: as short as keeps the rows of each defense apart."""
    names: dict[tuple[str, str], str] = {}
    found: dict[str, list[tuple[Any, ...]]] = {}
    for row in frame.itertuples():
        if row.attack != WORST:
            group = tuple(getattr(row, name) for name in (*SETTING, "defense"))
            found.setdefault(str(row.attack), []).append((group, str(row.view), str(row.view).split(",")[0]))
    for attack, rows in found.items():
        several = len({group for group, _, _ in rows}) < len(rows)
        by_mode = len({(group, mode) for group, _, mode in rows}) == len(rows)
        plain = _NAMES.get(attack, attack)
        for _, view, mode in rows:
            names[attack, view] = f"{plain} ({mode if by_mode else view})" if several else plain
    return names


def pivot(frame: pd.DataFrame, *, marked: Collection[str] = ()) -> Table:
    """The comparison of defenses, one line each.

    Args:
        frame: what `summary` gave.
        marked: defenses whose exact gradients are not certified.

    Returns:
        Per defense: clean accuracy, the worst case with its interval, the rank, then accuracy under each attack.
    """
    if frame.empty:
        return Table("Comparison: nothing to compare", ("defense",), ())
    title, differs = _heading(frame, "Comparison")
    names = _column_names(frame)
    shown = list(dict.fromkeys(names.values()))
    clean = [n for n in shown if n == _NAMES[CLEAN]]
    others = [n for n in shown if n not in clean]
    rows: list[tuple[str, ...]] = []
    for _, part in frame.groupby([*SETTING, "defense"], sort=False):
        lines: list[Any] = list(part.itertuples())
        shares = {r: _interval(r, "clean" if r.attack == CLEAN else "robust") for r in lines if r.attack != WORST}
        cells = {names[r.attack, r.view]: _short(r, share) for r, share in shares.items()}
        worst = next((r for r in lines if r.attack == WORST), None)
        verdict = [_ABSENT, _ABSENT] if worst is None else [_short(worst, _interval(worst)), _rank(worst)]
        head = [*_setting_cells(lines[0], differs), _with_mark(str(lines[0].defense), lines[0], marked)]
        first, rest = ([cells.get(name, _ABSENT) for name in group] for group in (clean, others))
        rows.append((*head, *first, *verdict, *rest))
    means = [[f"{n}: mean % [95%]" for n in group] for group in (clean, others)]
    columns = (*differs, "defense", *means[0], "worst case: mean % [95%]", "rank", *means[1])
    starred = any("*" in cell for row in rows for cell in row[len(differs) + 1 :])
    return Table(title, columns, tuple(rows), footnotes.of_comparison(frame, starred=starred), len(differs) + 1)


def _short(row: Any, value: str) -> str:
    if row.status == "ok":
        return value
    reason = str(row.status).split(":")[0]
    return reason if value == _ABSENT and reason != "partial" else f"{value}*"


def _rank(row: Any) -> str:
    return _ABSENT if str(row.rank) in ("<NA>", "nan", "None") else str(int(row.rank))


def _number(value: float, digits: int = 4) -> str:
    if math.isnan(value):
        return _ABSENT
    if math.isinf(value):
        return "∞"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


def _count(value: float) -> str:
    return f"{value:.0f}" if value == round(value) else f"{value:.1f}"


def _rate(row: Any) -> str:
    if math.isnan(row.asr):
        return _ABSENT
    of = f"{_count(row.asr_newly_wrong)}/{_count(row.asr_originally_correct)}"
    return f"{_share('asr')(row)} ({of})"


def _median(row: Any) -> str:
    """The median size with its interval and the number of images."""
    name = "median_perturbation"
    size, low, high = (_number(getattr(row, column)) for column in (name, *bounds_of(name)))
    return _ABSENT if size == _ABSENT else f"{size} [{low}, {high}] ({_count(row.median_perturbation_images)})"


def _share(name: str) -> Callable[[Any], str]:
    """Shows a share with its interval."""

    def shown(row: Any) -> str:
        value, low, high = (getattr(row, column) for column in (name, *bounds_of(name)))
        return _ABSENT if math.isnan(value) else f"{percent(value)} [{percent(low)}, {percent(high)}]"

    return shown


def _shown(frame: pd.DataFrame, by_seed: pd.DataFrame | None) -> list[tuple[str, Any]]:
    """(What its defense is called, row): below each mean over seeds of training the rows that it is of."""
    apart: dict[tuple[Any, ...], list[tuple[str, Any]]] = {}
    rows: list[Any] = list(frame.itertuples())
    trained: list[Any] = [] if by_seed is None else list(by_seed.itertuples())
    for r in trained:
        name = f"{r.defense} (training seed {r.training_seed})"
        apart.setdefault(tuple(getattr(r, c) for c in ROW), []).append((name, r))
    shown: list[tuple[str, Any]] = []
    for r in rows:
        shown += [(str(r.defense), r), *(apart.get(tuple(getattr(r, c) for c in ROW), []) if r.n_seeds > 1 else [])]
    return shown


def _with_mark(text: str, row: Any, marked: Collection[str]) -> str:
    return f"{text} {UNCERTIFIED}" if row.defense in marked else text


def full_table(
    frame: pd.DataFrame,
    *,
    m: Sequence[int] = M,
    said: Aggregation = _ALL_DRAWS,
    by_seed: pd.DataFrame | None = None,
    marked: Collection[str] = (),
) -> Table:
    """Every row and aggregation of a summary.

    Args:
        frame: what `summary` gave.
        m: the M of Rob(M) in it.
        said: draws of a majority vote and of a mean logit.
        by_seed: what it gave by seed; None: single seeds are not shown.
        marked: defenses whose exact gradients are not certified.
    """
    if frame.empty:
        return Table("All rows: none", ("defense",), ())
    title, differs = _heading(frame, "All rows")
    shares = {f"Rob({i}): unbiased %": f"rob_m{i}" for i in m} | {"majority vote %": "majority"}
    shares["mean logit %"] = "mean_logit"
    if (frame["rejected_mean"] > 0).any():
        shares = dict(zip(("refused: mean %", "right or refused: mean %"), REFUSED, strict=True)) | shares
    shares = {header: name for header, name in shares.items() if frame[name].notna().any()}
    columns: dict[str, Callable[[Any], str]] = {
        "images (planned)": lambda r: f"{r.n_images} ({r.planned})",
        "draws": lambda r: str(r.draws) if r.draws else _ABSENT,
        "clean: mean % [95%]": lambda r: _interval(r, "clean"),
        "robust: mean % [95%]": _interval,
        **{header: _share(name) for header, name in shares.items()},
        "attack success % [95%] (newly wrong / originally right)": _rate,
        "median size [95%] (originally right)": _median,
        "evaluations per image": lambda r: _number(r.evaluations_per_image),
        "queries per image": lambda r: _number(r.queries_per_image),
        "seconds per image": lambda r: _number(r.seconds_per_image, 3),
        "budget": lambda r: str(r.budget),
        "status": lambda r: str(r.status),
    }
    lines = _shown(frame, by_seed)
    rows = tuple(
        (
            *_setting_cells(r, differs),
            *(name, _NAMES.get(r.attack, str(r.attack))),
            "" if r.attack in _NAMES else _with_mark(str(r.view), r, marked if str(r.view).startswith("exact") else ()),
            *(show(r) for show in columns.values()),
        )
        for name, r in lines
    )
    strong = frozenset(i for i, (name, r) in enumerate(lines) if r.attack == WORST and name == r.defense)
    header = (*differs, "defense", "attack", "attack view", *columns)
    return Table(title, header, rows, footnotes.of_all_rows(frame, said), len(differs) + 3, tail=1, strong=strong)


def _made(cells: pd.DataFrame) -> list[dict[str, Any]]:
    """Which runs made the cells of each defense; None where nothing did."""
    columns = cells.reindex(columns=["defense", "status", "run"]).drop_duplicates().astype(object)
    return [{str(k): v for k, v in line.items()} for line in columns.where(columns.notna(), None).to_dict("records")]


def write_tables(results_dir: str | Path, *, m: Sequence[int] | None = None) -> Table:
    """Compute all tables of a results folder and write tables.txt, .md, .csv, .tex, .html, each atomically.

    Args:
        results_dir: the folder.
        m: the M of Rob(M); None: what the board says, else 5 and 15.

    Returns:
        The comparison, for printing.

    Raises:
        UserError: no results there, a damaged file, or the folder cannot be written.
    """
    from bench.report.footnotes import mixed
    from bench.report.html import to_html
    from bench.report.latex import to_latex
    from bench.report.plain import to_csv, to_markdown, to_text
    from bench.spec.aggregation import aggregation_of
    from bench.store.folder import write_atomic
    from bench.store.manifest import read_manifest

    folder = Path(results_dir)
    results, manifest = read_results(folder), read_manifest(folder)
    said = aggregation_of(manifest)
    m = said.m if m is None else m
    failed = failures(folder, manifest)
    frame = ranked(summary(results, m=m), without=labels(failed))
    reasons = uncertified(folder, results.cells, manifest)
    about = (
        *footnotes.of_preset(manifest),
        *footnotes.of_sequential(said, results.records),
        *footnotes.of_certificates(reasons),
    )
    notes = (*about, *footnotes.warnings(results.cells), *mixed(_made(results.cells), manifest))
    by_seed = summary(results, m=m, by_seed=True) if footnotes.has_seeds(frame) else None
    made = (pivot(frame, marked=reasons), full_table(frame, m=m or M, said=said, by_seed=by_seed, marked=reasons))
    comparison, whole = (flagged(replace(t, footnotes=(*t.footnotes, *notes)), failed) for t in made)
    tables = [comparison, whole]
    title = str(manifest.get("title") or manifest.get("board") or folder.resolve().name)
    write_atomic(folder / "tables.txt", to_text(comparison, _TEXT_WIDTH))
    csv = with_audit(footnotes.with_warnings(numbers(frame), results.cells, reasons), failed)
    write_atomic(folder / "tables.csv", to_csv(csv))
    write_atomic(folder / "tables.md", to_markdown(tables))
    write_atomic(folder / "tables.tex", to_latex(tables))
    write_atomic(folder / "tables.html", to_html(tables, title))
    return comparison


def flagged(table: Table, failed: Mapping[str, tuple[str, ...]]) -> Table:
    """A table in which the defenses that fail their audit have a mark, and a footnote says which checks.

    Args:
        table: with a column "defense".
        failed: the names of the checks, by title; the mean over trainings is marked where one of them fails.
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
