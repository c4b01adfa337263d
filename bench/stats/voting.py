"""Combine the draws of an image: majority vote, mean logit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from defenses.utils.arrays import Bools


def majority(pred: npt.ArrayLike, label: npt.ArrayLike, counted: npt.ArrayLike | None = None) -> Bools:
    """Whether the majority vote of an image's draws is right. A tie with another class is wrong.

    Args:
        pred: predicted class per draw, int [images, draws]; a refusal is a class of its own, as -1.
        label: int [images].
        counted: bool [images, draws]; others do not vote. Default: all do.

    Returns:
        Bool [images]; False where nothing votes.
    """
    votes, y = np.asarray(pred), np.asarray(label)
    ballots = np.ones(votes.shape, bool) if counted is None else np.asarray(counted, bool)
    lowest = int(min(votes.min(), y.min())) if votes.size else 0
    classes = int(max(votes.max(), y.max())) - lowest + 1 if votes.size else 1
    out = np.zeros(len(votes), bool)
    per_pass = max(1, (1 << 22) // classes)  # memory
    for begin in range(0, len(votes) if votes.size else 0, per_pass):
        at = slice(begin, begin + per_pass)
        rows = np.arange(len(votes[at]))
        cast = (rows[:, None] * classes + (votes[at] - lowest))[ballots[at]]
        count = np.bincount(cast, minlength=len(rows) * classes).reshape(len(rows), classes)
        right = count[rows, y[at] - lowest]
        count[rows, y[at] - lowest] = 0
        out[at] = right > count.max(1)
    return out


def mean_logit(logits: npt.ArrayLike, label: npt.ArrayLike) -> Bools:
    """Whether the class with the highest mean logit is the label. A tie is wrong, and so is NaN.

    Args:
        logits: [images, draws, K].
        label: int [images].

    Returns:
        Bool [images].
    """
    mean = np.asarray(logits, np.float64).mean(1)
    at = np.arange(len(mean)), np.asarray(label)
    own = mean[at]
    mean[at] = -np.inf
    out: Bools = own > mean.max(1)
    return out
