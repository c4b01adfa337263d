"""Decide an image by all its draws: majority vote, mean logit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from defenses.utils.arrays import Bools


def majority(pred: npt.ArrayLike, label: npt.ArrayLike, counted: npt.ArrayLike | None = None) -> Bools:
    """Return True for each image whose majority vote is right; a tie with another class is wrong.

    Args:
        pred: predicted class per draw, int [images, draws]; a refusal is a class of its own, as -1.
        label: right class, int [images].
        counted: True for draws that vote, bool [images, draws]. Default: all.

    Returns:
        Bool [images]; False where no draw votes.
    """
    votes, y = np.asarray(pred), np.asarray(label)
    voting = np.ones(votes.shape, bool) if counted is None else np.asarray(counted, bool)
    lowest = int(min(votes.min(), y.min())) if votes.size else 0
    classes = int(max(votes.max(), y.max())) - lowest + 1 if votes.size else 1
    out = np.zeros(len(votes), bool)
    per_pass = max(1, (1 << 22) // classes)  # memory
    for begin in range(0, len(votes) if votes.size else 0, per_pass):
        at = slice(begin, begin + per_pass)
        rows = np.arange(len(votes[at]))
        cast = (rows[:, None] * classes + (votes[at] - lowest))[voting[at]]
        count = np.bincount(cast, minlength=len(rows) * classes).reshape(len(rows), classes)
        right = count[rows, y[at] - lowest]
        count[rows, y[at] - lowest] = 0
        out[at] = right > count.max(1)
    return out


def mean_logit(logits: npt.ArrayLike, label: npt.ArrayLike) -> Bools:
    """Return True for each image whose label has the highest mean logit; a tie is wrong, and so is NaN.

    Args:
        logits: logits per draw, [images, draws, K].
        label: right class, int [images].

    Returns:
        Bool [images].
    """
    mean = np.asarray(logits, np.float64).mean(1)
    at = np.arange(len(mean)), np.asarray(label)
    of_label = mean[at]
    mean[at] = -np.inf
    out: Bools = of_label > mean.max(1)
    return out
