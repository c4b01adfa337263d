"""What an image's draws say together, counted straight from Arrow columns: a full board has millions of draws."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bench.analysis.records import Lookup
from bench.stats.voting import majority, mean_logit
from bench.store.parts import DRAWS
from defenses.utils.arrays import F64, I64

if TYPE_CHECKING:
    import pandas as pd

    from bench.store.reader import Part

_IMAGES = 4096  # per pass (memory)
_JUDGED = ("index", "draw", "held_out", "pred", "rejected")
_SEVERAL = (*_JUDGED, "margin", "logits", "classes")  # of defenses with more than one draw


@dataclass(frozen=True, eq=False)
class Images:
    """The records of a results folder, to be found by cell and image.

    Args:
        known: rows of the records by the number of `numbers`.
        label, target: of each row.
    """

    known: Lookup
    label: I64
    target: I64

    @classmethod
    def of(cls, records: pd.DataFrame) -> Images:
        """Those of `bench.analysis.records.read_records`."""
        keys = numbers(records["at"].to_numpy(), records["index"].to_numpy())
        return cls(Lookup(keys), *(records[name].to_numpy(np.int64) for name in ("label", "target")))


def numbers(high: npt.ArrayLike, index: npt.ArrayLike) -> I64:
    """One number for a cell (or what stands for it) and an image."""
    out: I64 = (np.asarray(high, np.int64) << 32) + np.asarray(index, np.int64)
    return out


def _logits(draws: Any) -> npt.NDArray[np.floating[Any]] | None:
    """[rows, K]; None when not all logits of a draw are stored."""
    if "logits" not in draws.column_names or "classes" in draws.column_names or draws["logits"].null_count:
        return None
    flat = draws["logits"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    if not len(draws) or len(flat) % len(draws):
        return None
    out: npt.NDArray[np.floating[Any]] = flat.reshape(len(draws), -1)
    return out


@dataclass(frozen=True, eq=False)
class CleanDraws:
    """Which held-out draws are right on the clean images.

    Args:
        owner: by cell, a number that stands for its defense and images: these share their draws.
        known: rows of `right` by owner and image.
        right: 1 or 0, or -1 where it is not known; int8 [images, draws].
    """

    owner: I64
    known: Lookup
    right: npt.NDArray[np.int8]

    def of(self, at: I64, index: I64, count: I64, draw: I64) -> F64:
        """For each draw of some images whether the clean image is right under the same draw; NaN: not known.

        Args:
            at: cells of the images.
            index: indices of the images.
            count: of their draws.
            draw: numbers of the draws, image by image.
        """
        rows = np.repeat(self.known(numbers(self.owner[at], index)), count)
        width = self.right.shape[1]
        found = (rows >= 0) & (draw < width)
        values = self.right.ravel()[np.where(found, rows * width + draw, 0)] if width else np.zeros(len(rows), np.int8)
        return np.where(found & (values >= 0), values, np.nan)


def clean_draws(parts: Sequence[Part], images: Images, owner: I64) -> CleanDraws:
    """The right draws of clean images.

    Args:
        parts: with the cells of clean images alone.
        images: the records.
        owner: see `CleanDraws`.
    """
    keys, draws, right = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.bool_)]
    for table in (t for part in parts for t in part.batches(DRAWS, _JUDGED)):
        held = table.filter(table["held_out"]).combine_chunks()
        at, index = held["at"].to_numpy(), held["index"].to_numpy()
        label = images.label[images.known(numbers(at, index))]
        keys.append(numbers(owner[at], index))
        draws.append(held["draw"].to_numpy().astype(np.int64))
        right.append((held["pred"].to_numpy() == label) & ~held["rejected"].to_numpy())
    draw = np.concatenate(draws)
    unique, row = np.unique(np.concatenate(keys), return_inverse=True)
    matrix = np.full((len(unique), int(draw.max()) + 1 if len(draw) else 0), -1, np.int8)
    # The same clean images are judged once per threat: backwards, so that the first ones stay.
    matrix[row[::-1], draw[::-1]] = np.concatenate(right)[::-1]
    return CleanDraws(owner, Lookup(unique), matrix)


def _margins(draws: Any, images: Images) -> tuple[I64, F64]:
    """(Rows of the records, `margin_sel` of these) for whole cells."""
    import pyarrow.compute as pc

    draws = draws.filter(pc.invert(draws["held_out"])).combine_chunks()
    rows = images.known(numbers(draws["at"].to_numpy(), draws["index"].to_numpy()))
    margin, target = draws["margin"].to_numpy().astype(np.float64), images.target[rows]
    aimed = np.flatnonzero(target >= 0)
    if len(aimed):
        logits = _logits(draws)
        margin[aimed] = np.nan if logits is None else _over(logits[aimed].astype(np.float64), target[aimed])
    found, group, count = np.unique(rows, return_inverse=True, return_counts=True)
    return found, np.bincount(group, margin, len(found)) / count


def _over(logits: F64, target: I64) -> F64:
    """By how much the largest other logit exceeds the target's, [rows] from [rows, K]."""
    at = np.arange(len(logits)), target
    own = logits[at]
    logits[at] = -np.inf
    return np.asarray(logits.max(1) - own)


def _votes(draws: Any, images: Images, clean: CleanDraws, k: int | None) -> tuple[I64, dict[str, F64]]:
    """(Rows of the records, votes of their draws) for whole cells."""
    draws = draws.filter(draws["held_out"]).combine_chunks()
    keys = numbers(draws["at"].to_numpy(), draws["index"].to_numpy())
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    start = np.flatnonzero(np.diff(keys, prepend=-1))
    groups, count = keys[start], np.diff(start, append=len(keys))
    rows = images.known(groups)
    label, target = images.label[rows], images.target[rows]
    chosen = draws["pred"].to_numpy()[order]
    # A refusal is a class of its own.
    pred = np.where(draws["rejected"].to_numpy()[order], -1, chosen)
    aim, own = np.repeat(target, count), np.repeat(label, count)
    won = np.where(aim < 0, pred != own, pred == aim) & (pred >= 0)
    before = clean.of(groups >> 32, groups & 0xFFFFFFFF, count, draws["draw"].to_numpy()[order].astype(np.int64))
    newly = np.add.reduceat(before * won, start) if len(groups) else np.zeros(0)
    logits = _logits(draws)
    by_vote, by_mean = np.full(len(groups), np.nan), np.full(len(groups), np.nan)
    for size in np.unique(count):
        same = np.flatnonzero(count == size)
        if size == 1:
            one = start[same]
            by_vote[same] = pred[one] == label[same]
            by_mean[same] = chosen[one] == label[same]  # stored logits are rounded: close ones may tie
            continue
        for at in np.split(same, range(_IMAGES, len(same), _IMAGES)):
            members = start[at][:, None] + np.arange(size if k is None else min(k, size))
            by_vote[at] = majority(pred[members], label[at])
            if logits is not None:
                kept = logits[order[members]]
                told = np.isfinite(kept).all((1, 2))  # older versions kept no logits under -65,504
                by_mean[at] = np.where(told, mean_logit(kept, label[at]), np.nan)
    return rows, {"majority": by_vote, "mean_logit": by_mean, "newly_wrong": newly}


def votes(
    parts: Iterable[Part], images: Images, clean: CleanDraws, draws: I64, *, k: int | None = None
) -> dict[str, F64]:
    """What the draws of every record say.

    Args:
        parts: of a results folder.
        images: the records.
        clean: the draws of clean images.
        draws: how many every cell has planned; single ones need no logits.
        k: majority and mean logit are of the first so many; None: of all.

    Returns:
        Columns for the records: majority, mean_logit, newly_wrong (see `bench.analysis.results.Results`) of the
        held-out draws; margin_sel, the mean over selection draws of what the attack aims to lower: the margin of the
        label, or when targeted that of the best other class over the target (NaN without all logits, or without
        selection draws).

    Raises:
        UserError: a file cannot be read.
    """
    names = ("majority", "mean_logit", "newly_wrong", "margin_sel")
    found = {name: np.full(len(images.label), np.nan) for name in names}
    for part in parts:
        several = any(draws[at] > 1 for at in part.cells.values())
        for table in part.batches(DRAWS, _SEVERAL if several else _JUDGED):
            rows, values = _votes(table, images, clean, k)
            for name, column in values.items():
                found[name][rows] = column
            if several:
                rows, column = _margins(table, images)
                found["margin_sel"][rows] = column
    return found
