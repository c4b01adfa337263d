"""Texts of summary rows that the comparison and the full table share: titles, settings, means."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from bench.analysis.caveats import FAILED_AUDIT, RESUMED, UNCERTIFIED
from bench.analysis.records import CLEAN, NULL
from bench.report.format import interval, percent
from bench.spec.cell import KNOWN, label_of
from defenses.utils.names import portable

if TYPE_CHECKING:
    import pandas as pd

NO_MARKS: Mapping[str, str] = MappingProxyType({})
NAMES = {CLEAN: "clean images", NULL: "uniform noise"}  # of attacks
NAMES |= {f"{attack}{KNOWN}": f"{name}{KNOWN}" for attack, name in NAMES.items()}


def heading(frame: pd.DataFrame, kind: str) -> tuple[str, tuple[str, ...]]:
    """Return the title of a table, and the columns that show the parts of the setting that differ.

    Args:
        frame: a summary, not empty.
        kind: first words of the title, which goes on with the setting that all rows share.
    """
    rows: list[object] = list(frame.itertuples())
    first = rows[0]
    parts = {
        "data": (lambda r: f"{portable(r.dataset)} {r.split} ({r.indices}, {r.planned} images)"),
        "threat": _threat,
    }
    differs = tuple(name for name, show in parts.items() if len({show(r) for r in rows}) > 1)
    shared = [show(first) for name, show in parts.items() if name not in differs]
    budgets = sorted({b for text in frame["budget"] for b in str(text).split("+")} - {"full", ""})
    shared += [f"{b} budget" for b in budgets]
    return ": ".join(p for p in (kind, ", ".join(shared)) if p), differs


def setting_cells(row: Any, differs: Sequence[str]) -> list[str]:
    """Return the cells of a row in the columns of `heading`."""
    shown = {"data": f"{portable(row.dataset)} {row.split} ({row.indices})", "threat": _threat(row)}
    return [shown[name] for name in differs]


def _threat(row: Any) -> str:
    return f"{row.norm} {row.eps}" + ("" if row.targets == "none" else f", target {row.targets}")


def mean_cell(row: Any, name: str = "robust") -> str:
    """Return a mean of a row with its interval, and its spread over training seeds if there are several.

    Args:
        row: a row of a summary.
        name: "robust" or "clean".
    """
    mean, low, high, sd = (getattr(row, f"{name}_{end}") for end in ("mean", "low", "high", "sd_seeds"))
    text = interval(mean, low, high)
    return text if math.isnan(mean) or math.isnan(sd) else f"{text} ± {percent(sd)} ({row.n_seeds} seeds)"


def marks_of_names(failed: Mapping[str, object], resumed: Collection[str]) -> dict[str, str]:
    """Return the marks after the titles and labels of defenses: failed audits, and results resumed in spite of doubts.

    Args:
        failed: titles of the defenses that fail their audit; a mean over trainings is marked if one of them fails.
        resumed: labels of defenses whose results were resumed although they may be of another model.
    """
    audits = {name: f" {FAILED_AUDIT}" for title in failed for name in (title, label_of(title))}
    return audits | {name: f"{audits.get(name, '')} {RESUMED}" for name in resumed}


def with_mark(text: str, row: Any, marked: Collection[str]) -> str:
    """Return a text with the mark of uncertified gradients if the row's defense is marked."""
    return f"{text} {UNCERTIFIED}" if row.defense in marked else text
