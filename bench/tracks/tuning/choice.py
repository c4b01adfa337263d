"""The rule that chooses among candidates, from the records of their board."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.analysis.results import load_cells, load_results
from bench.spec.cell import TRANSFER
from bench.stats.proportions import wilson
from defenses.utils.errors import UserError
from defenses.utils.json_values import Json

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    F64 = npt.NDArray[np.float64]

RULE = (
    "score: mean of clean accuracy and accuracy under the transfer; chosen: of the candidates whose score is at most "
    "one standard error of the paired difference below the best, the one with the fewest evaluations; of equals the "
    "first"
)


@dataclass(frozen=True)
class CandidateScores:
    """Measurements of a candidate.

    Args:
        label: of the candidate.
        clean: accuracy per image on clean images, float [N], means over draws.
        transfer: the same under the transfer.
        evaluations: of networks, for a prediction of an image.
    """

    label: str
    clean: F64
    transfer: F64
    evaluations: float

    @property
    def scores(self) -> F64:
        """Return the score per image, float [N]."""
        return 0.5 * (self.clean + self.transfer)

    def numbers(self) -> Json:
        """Return the accuracies with their 95 % Wilson intervals, the score and the cost."""
        images = {"clean": self.clean, "transfer": self.transfer}
        shares = {name: float(values.mean()) for name, values in images.items()}
        bounds = {
            f"{name}_interval": [float(bound) for bound in wilson(values.sum(), len(values))]
            for name, values in images.items()
        }
        return {**shares, **bounds, "score": float(self.scores.mean()), "evaluations": self.evaluations}


def choose(rows: Sequence[CandidateScores]) -> CandidateScores:
    """Return the candidate that `RULE` chooses.

    Args:
        rows: at least one, on the same images, in the order of the grid.
    """
    best = max(rows, key=lambda row: float(row.scores.mean()))
    return min((row for row in rows if _as_good(row, best)), key=lambda row: row.evaluations)


def _as_good(row: CandidateScores, best: CandidateScores) -> bool:
    """Return True if a score is at most one standard error of the paired difference below the best."""
    difference = best.scores - row.scores
    error = float(difference.std(ddof=1)) / len(difference) ** 0.5 if len(difference) > 1 else 0.0
    return float(difference.mean()) <= error


def measured(folder: Path, labels: Sequence[str]) -> tuple[list[CandidateScores], dict[str, str]]:
    """Return the candidates whose cells all ran, in the order of `labels`, and for the others the reason.

    Args:
        folder: results of the board of a grid.
        labels: of all candidates.

    Raises:
        UserError: no candidate ran.
    """
    frame, cells = load_results(folder), load_cells(folder)
    rows, failed = [], {}
    for label in labels:
        of_label = cells[(cells["defense"] == label) & cells["attack"].isin(("none", TRANSFER))]
        broken = of_label[(of_label["status"] != "ok") | of_label["error"].notna()]
        if len(broken):
            failed[label] = str(broken["error"].iloc[0] or broken["status"].iloc[0])
        else:
            rows.append(_row(label, frame[frame["defense"] == label], of_label))
    if not rows:
        raise UserError(f"no candidate of the grid ran; {next(iter(failed))}: {next(iter(failed.values()))}")
    return rows, failed


def _row(label: str, frame: pd.DataFrame, cells: pd.DataFrame) -> CandidateScores:
    shares = [frame[frame["attack"] == name].sort_values("image")["accuracy"].to_numpy() for name in ("none", TRANSFER)]
    clean = cells[cells["attack"] == "none"]
    images = (clean["images"] * (clean["draws"] + clean["selection"])).sum()
    cost = float((clean["forwards_verdict"] + 2 * clean["backwards_verdict"]).sum() / images)
    return CandidateScores(label, shares[0], shares[1], cost)
