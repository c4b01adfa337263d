"""The choice of the worst attack per image: pure functions of counts, without the bias of a plain minimum."""

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
    idle: npt.ArrayLike = False,
) -> I64:
    """The attack that hurts each image most, by its selection draws.

    Few draws are often equal, so their mean margin decides next: without it, ties go to what is no attack at all, or
    to the smaller perturbation, and the worst case is biased upward. Then the smaller perturbation is taken where both
    succeed (withstood by less than half), then what attacks, then the first.

    Args:
        selection: share of selection draws that withstand the attack, [attacks, images]; NaN where it has no verdict.
        size: of the perturbations, broadcast to the same shape.
        margin: mean over selection draws, broadcast; the attack aims to lower it. NaN: unknown.
        idle: whether it attacks nothing, as the clean images; broadcast.

    Returns:
        int64 [images]: position of the attack; -1 where no attack has a verdict.
    """
    share = np.asarray(selection, float)
    if not len(share):
        return np.full(share.shape[1:], -1, np.int64)
    needed = np.where(share < 0.5, size, np.inf)
    # The last key counts first.
    keys = np.broadcast_arrays(np.asarray(idle, bool), needed, np.asarray(margin, float), share)
    chosen = np.lexsort(keys, axis=0)[0]
    return np.where(np.isnan(share).all(0), -1, chosen).astype(np.int64)


@dataclass(frozen=True)
class Worst:
    """The worst attack per image.

    Args:
        attack: position of the chosen attack, int64 [images]; -1: none has a verdict.
        withstood: held-out draws that withstand it, float64 [images]; NaN: none.
        n: its held-out draws, float64 [images].
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
    idle: npt.ArrayLike = False,
) -> Worst:
    """Per-image worst over attacks: chosen on selection draws, counted on held-out draws the choice did not see.

    The plain minimum over attacks of noisy counts is biased: with 8 equally strong attacks, 10 draws and true
    accuracy .90 it says about .75. For a deterministic defense pass the one verdict as both.

    Args:
        withstood_sel: selection draws that withstand an attack, [attacks, images]; NaN where it has no verdict.
        withstood: held-out draws that do, [attacks, images].
        n_sel: number of selection draws, broadcast to the same shape.
        n_held: number of held-out draws, broadcast to the same shape.
        size: of the perturbations, broadcast to the same shape: decides between equals; see `select_worst`.
        margin: over selection draws, broadcast: the same.
        idle: whether a row attacks nothing, broadcast: the same.

    Raises:
        ValueError: there are verdicts without selection draws.
    """
    sel, held, ns, nh = np.broadcast_arrays(*(np.asarray(a, float) for a in (withstood_sel, withstood, n_sel, n_held)))
    if np.any(~np.isnan(sel) & ~(ns > 0)):
        raise ValueError("the worst attack is chosen on selection draws, and there are none")
    chosen = select_worst(sel / np.where(ns > 0, ns, np.nan), size, margin=margin, idle=idle)
    if not len(sel):
        empty = np.full(chosen.shape, np.nan)
        return Worst(chosen, empty, empty)
    at = np.maximum(chosen, 0), np.arange(sel.shape[1])
    none = chosen < 0
    return Worst(chosen, np.where(none, np.nan, held[at]), np.where(none, np.nan, nh[at]))
