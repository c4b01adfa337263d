"""Compare two judgements of the same images, by their records and draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from defenses.core.detector import Guard

TIE = 1e-5  # gap of the two largest logits below which the class may change between machines; refusals: see `_near`
SIZE = 1e-6  # norms are computed in float64 and stored as float32
_COUNTS = ("correct", "draws", "correct_sel", "draws_sel", "hits", "hits_sel", "rejected", "majority_right")
_FLAGS = ("in_box", "in_ball", "finite", "beyond", "status")
_SIZES = ("linf", "l2", "l1", "l0")


@dataclass(frozen=True)
class Agreement:
    """Agreement of two judgements of a cell.

    Args:
        images: number of images.
        differing: number of images with another count, or another class or refusal in a draw.
        unexplained: number of these that differ in a draw that is no tie: another class, where the two largest logits
            are not within `TIE`; or another refusal, where the score is not as near to the threshold.
        accuracy: sum over images of the change in their share of right draws.
        margin: largest change of a draw's margin.
        size: largest relative change of a perturbation's norm.
        flagged: number of images that are in box or ball, or have a verdict, in only one of the two.
    """

    images: int = 0
    differing: int = 0
    unexplained: int = 0
    accuracy: float = 0.0
    margin: float = 0.0
    size: float = 0.0
    flagged: int = 0

    @property
    def kind(self) -> str:
        """Return "agree" for the same verdict in every draw (margins may differ), "ties", or "differ"."""
        if self.flagged or self.unexplained or self.size > SIZE:
            return "differ"
        return "ties" if self.differing else "agree"

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            self.images + other.images,
            self.differing + other.differing,
            self.unexplained + other.unexplained,
            self.accuracy + other.accuracy,
            max(self.margin, other.margin),
            max(self.size, other.size),
            self.flagged + other.flagged,
        )


def compare(
    before: pd.DataFrame,
    after: pd.DataFrame,
    draws: pd.DataFrame,
    draws_after: pd.DataFrame,
    *,
    guard: Guard | None = None,
) -> Agreement:
    """Compare two judgements of the same images.

    Args:
        before: records, a row per image.
        after: records of the same images.
        draws: draws of the first judgement, a row per image and draw; draws of other images are ignored.
        draws_after: draws of the second judgement.
        guard: detector of the second judgement, if it refuses images.
    """
    return compare_images(before, after, draws, draws_after, guard=guard)[0]


def compare_images(
    before: pd.DataFrame,
    after: pd.DataFrame,
    draws: pd.DataFrame,
    draws_after: pd.DataFrame,
    *,
    guard: Guard | None = None,
) -> tuple[Agreement, set[int], set[int]]:
    """Compare as `compare`; return the images that differ, too, and those of them that differ in a draw that is no tie.

    Args:
        before: see `compare`, as for the others.
        after: records of the same images.
        draws: draws of the first judgement.
        draws_after: draws of the second judgement.
        guard: detector of the second judgement, if it refuses images.
    """
    before, after = (r.set_index("index").sort_index() for r in (before, after))
    counts = before[[c for c in _COUNTS if c in before and c in after]]  # records of older versions lack some
    recount = ((counts != after[counts.columns]) & counts.notna()).any(axis=1)
    flagged = (before[list(_FLAGS)] != after[list(_FLAGS)]).any(axis=1)
    keys = ["index", "draw"]
    both = draws[draws["index"].isin(before.index)].merge(draws_after, on=keys, suffixes=("", "_after"))
    other_class = (both["pred"] != both["pred_after"]).to_numpy()
    other_refusal = (both["rejected"] != both["rejected_after"]).to_numpy()
    tie = np.minimum(_gap(both["logits"]), _gap(both["logits_after"])) < TIE
    unexplained_draws = (other_class & ~tie) | (other_refusal & ~_near(both, guard))
    differing_draws = set(both["index"][other_class | other_refusal])
    differing = set(before.index[recount]) | differing_draws
    margin = np.abs(both["margin"].to_numpy(float) - both["margin_after"].to_numpy(float))
    sizes, sizes_after = (records[list(_SIZES)].to_numpy(float) for records in (before, after))
    size = np.nanmax(np.abs(sizes - sizes_after) / np.maximum(1.0, np.abs(sizes)), initial=0.0)  # relative above 1
    # another count without a differing draw is no tie
    unexplained = set(both["index"][unexplained_draws]) | (differing - differing_draws)
    agreement = Agreement(
        images=len(before),
        differing=len(differing),
        unexplained=len(unexplained),
        accuracy=float((_share(after) - _share(before)).sum()),
        margin=float(np.nanmax(margin, initial=0.0)),
        size=float(size),
        flagged=int(flagged.sum()),
    )
    return agreement, {int(i) for i in differing}, {int(i) for i in unexplained}


def _gap(logits: pd.Series) -> np.ndarray:
    """Return the gap of the two largest logits, [draws]; infinity where there is only one."""
    if not len(logits):
        return np.zeros(0)
    values = np.sort(np.stack(logits.to_list()).astype(float), axis=1)
    return values[:, -1] - values[:, -2] if values.shape[1] > 1 else np.full(len(values), np.inf)


def _near(both: pd.DataFrame, guard: Guard | None) -> np.ndarray:
    """Return where one of the two scores is at the guard's threshold but for rounding, bool [draws].

    `TIE` is in units of the threshold or of the spread of clean scores, whichever is larger. Another threshold with the
    same scores is no tie.
    """
    if guard is None or "score" not in both or "score_after" not in both:
        return np.zeros(len(both), bool)
    distances = [np.abs(both[name].to_numpy(float) - guard.threshold) for name in ("score", "score_after")]
    near: np.ndarray = np.minimum(*distances) < TIE * max(guard.scale, abs(guard.threshold))
    return near


def _share(records: pd.DataFrame) -> pd.Series:
    """Return the share of right held-out draws; 0 without a verdict, which counts as flagged."""
    return records["correct"] / records["draws"].clip(lower=1)
