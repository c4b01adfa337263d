"""Compare published claims (model_info) with measured results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.report.model_info import ModelInfo
from bench.report.model_info_export import rows_of
from defenses.utils.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ClaimComparison:
    """A claimed accuracy with the measured one, in [0, 1].

    Args:
        key: key of the entry.
        claimed: claimed accuracy.
        measured: measured accuracy.
        low: lower end of the interval of the measured accuracy (Wilson, 95%).
        high: upper end.
        attack: attack of the measured accuracy.
    """

    key: str
    claimed: float
    measured: float
    low: float
    high: float
    attack: str

    @property
    def agrees(self) -> bool:
        """True if the claim, rounded to hundredths of a percent, lies in the interval."""
        return self.low - 5e-5 <= self.claimed <= self.high + 5e-5


def compare(info: ModelInfo, results: str | Path, defense: str, *, eps: str | None = None) -> list[ClaimComparison]:
    """Compare an entry's claims with a results folder.

    Args:
        info: the entry.
        results: the results folder.
        defense: label of the defense there.
        eps: radius of the threat there. Default: the entry's.

    Returns:
        Clean accuracy, AutoAttack (if it was run unchanged) and the worst case, as far as both sides have them.

    Raises:
        UserError: no results, no such defense or threat there, or another data set or eps than the entry's.
    """
    wanted = eps if eps is not None else info.raw.get("eps")
    rows = rows_of(results, defense, eps=wanted)
    if info.raw.get("dataset") not in (None, rows.dataset):
        raise UserError(
            f"the entry is of {info.raw['dataset']}, the results are of {rows.dataset}; compare like with like"
        )
    if info.eps is not None and info.eps != Fraction(rows.eps):
        raise UserError(
            f"the eps differ: the entry is of {info.raw['eps']}, the results are of {rows.eps}; compare like with like"
        )
    return list(
        _comparisons(info, {"clean_acc": rows.clean, "autoattack_acc": rows.autoattack, "external": rows.worst})
    )


def _comparisons(info: ModelInfo, rows: Mapping[str, pd.Series[Any] | None]) -> Iterator[ClaimComparison]:
    for key, row in rows.items():
        claimed = info.share(key)
        if claimed is not None and row is not None:
            mean, low, high = (float(row[c]) for c in ("robust_mean", "robust_low", "robust_high"))
            yield ClaimComparison(key, claimed, mean, low, high, str(row["attack"]))
