"""Choose the worst attack per image from counts, without the bias of a plain minimum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from defenses.utils.arrays import F64, I64


def select_worst(
    selection: npt.ArrayLike,
    size: npt.ArrayLike = np.inf,
    *,
    margin: npt.ArrayLike = np.nan,
    no_attack: npt.ArrayLike = False,
) -> I64:
    """Return the worst attack on each image by its selection draws.

    Shares of few draws often tie, so the mean margin decides next; without it, ties would go to clean images or to the
    smaller perturbation, and the worst case would be biased upward. Then the smaller perturbation is taken where both
    attacks succeed (fewer than half of the draws withstand), then an attack before clean images, then the first.

    Args:
        selection: share of selection draws that withstand the attack, [attacks, images] in [0, 1]; NaN: no verdict.
        size: size of the perturbations, broadcast to the same shape.
        margin: mean over selection draws of what the attack lowers, broadcast. NaN: unknown.
        no_attack: True for rows without an attack, as the clean images; broadcast.

    Returns:
        Position of the attack, int64 [images]; -1 where no attack has a verdict.
    """
    share = np.asarray(selection, float)
    if not len(share):
        return np.full(share.shape[1:], -1, np.int64)
    success_size = np.where(share < 0.5, size, np.inf)
    ties = np.ones(share.shape, bool)
    for key in (share, margin, success_size, no_attack):
        values = np.where(ties, key, np.nan)
        lowest = np.fmin.reduce(values)
        ties &= (values == lowest) | np.isnan(lowest)  # unknown ones come last
    return np.where(np.isnan(share).all(0), -1, ties.argmax(0)).astype(np.int64)


@dataclass(frozen=True)
class Worst:
    """Verdicts of the worst attack on each image.

    Args:
        attack: position of the attack, int64 [images]; -1: none has a verdict.
        withstood: number of held-out draws that withstand it, float64 [images]; NaN: no verdict.
        n: number of its held-out draws, float64 [images]; NaN: no verdict.
    """

    attack: I64
    withstood: F64
    n: F64


def worst_case(
    withstood_sel: npt.ArrayLike,
    withstood: npt.ArrayLike,
    n_sel: npt.ArrayLike,
    n_held: npt.ArrayLike,
    size: npt.ArrayLike = np.inf,
    *,
    margin: npt.ArrayLike = np.nan,
    no_attack: npt.ArrayLike = False,
) -> Worst:
    """Return the worst attack per image, chosen on selection draws and counted on held-out draws.

    Choosing and counting on the same draws would bias the worst case downward. For a deterministic defense pass its
    single verdict as both.

    Args:
        withstood_sel: number of selection draws that withstand an attack, [attacks, images]; NaN: no verdict.
        withstood: number of held-out draws that withstand it, [attacks, images].
        n_sel: number of selection draws, broadcast to the same shape.
        n_held: number of held-out draws, broadcast to the same shape.
        size: size of the perturbations, broadcast; breaks ties, see `select_worst`.
        margin: mean over selection draws, broadcast; breaks ties.
        no_attack: True for rows without an attack, broadcast; breaks ties.

    Returns:
        The worst attack and its verdicts.

    Raises:
        ValueError: there are verdicts without selection draws.
    """
    sel, held, ns, nh = np.broadcast_arrays(*(np.asarray(a, float) for a in (withstood_sel, withstood, n_sel, n_held)))
    if np.any(~np.isnan(sel) & ~(ns > 0)):
        raise ValueError("the worst attack is chosen on selection draws, and there are none")
    chosen = select_worst(sel / np.where(ns > 0, ns, np.nan), size, margin=margin, no_attack=no_attack)
    if not len(sel):
        empty = np.full(chosen.shape, np.nan)
        return Worst(chosen, empty, empty)
    at = np.maximum(chosen, 0), np.arange(sel.shape[1])
    none = chosen < 0
    return Worst(chosen, np.where(none, np.nan, held[at]), np.where(none, np.nan, nh[at]))
