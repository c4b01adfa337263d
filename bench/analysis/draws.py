"""Aggregate the draws of images straight from Arrow columns: a full board has millions of draws."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from bench.analysis.records import Lookup
from bench.stats.voting import majority, mean_logit
from bench.store.parts import DRAWS
from defenses.utils.arrays import F64, I64

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from bench.store.reader import Part

_IMAGES_PER_PASS = 4096  # memory
_COLUMNS = ("index", "draw", "held_out", "pred", "rejected")
_COLUMNS_OF_SEVERAL = (*_COLUMNS, "margin", "logits", "classes")  # of defenses with more than one draw


@dataclass(frozen=True, eq=False)
class JudgedImages:
    """Labels and targets of the records of a results folder, by cell and image.

    Args:
        rows: row of a record by its key, see `numbers`.
        label: right class of each row, int64 [records].
        target: target of each row, int64 [records]; negative without one.
    """

    rows: Lookup
    label: I64
    target: I64

    @classmethod
    def of(cls, records: pd.DataFrame) -> JudgedImages:
        """Return the images of the records of `bench.analysis.records.read_records`."""
        keys = numbers(records["at"].to_numpy(), records["index"].to_numpy())
        return cls(Lookup(keys), *(records[name].to_numpy(np.int64) for name in ("label", "target")))


def numbers(high: npt.ArrayLike, index: npt.ArrayLike) -> I64:
    """Return one integer key for a cell (or a group of cells) and an image.

    Args:
        high: number of the cell or group, int64 [rows].
        index: dataset index of the image, [rows]; below 2**32.
    """
    out: I64 = (np.asarray(high, np.int64) << 32) + np.asarray(index, np.int64)
    return out


def _logits(draws: pa.Table) -> npt.NDArray[np.floating[Any]] | None:
    """Return logits [rows, K]; None if not all logits of a draw are stored."""
    if "logits" not in draws.column_names or "classes" in draws.column_names or draws["logits"].null_count:
        return None
    flat = draws["logits"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    if not len(draws) or len(flat) % len(draws):
        return None
    out: npt.NDArray[np.floating[Any]] = flat.reshape(len(draws), -1)
    return out


@dataclass(frozen=True, eq=False)
class CleanDraws:
    """Correctness of the held-out draws on clean images.

    Args:
        owner: number of each cell's defense and images, int64 [cells]; cells with the same number share their draws.
        rows: row of `right` by owner and image, see `numbers`.
        right: 1 or 0, or -1 where it is unknown; int8 [images, draws].
    """

    owner: I64
    rows: Lookup
    right: npt.NDArray[np.int8]

    def of(self, at: I64, index: I64, count: I64, draw: I64) -> F64:
        """Return for each draw of some images the correctness of the clean image under the same draw.

        Args:
            at: position of each image's cell, int64 [images].
            index: dataset index, int64 [images].
            count: number of draws of each image, int64 [images].
            draw: number of each draw, image by image, int64 [draws of all images].

        Returns:
            1 or 0, or NaN where it is unknown, [draws of all images].
        """
        rows = np.repeat(self.rows(numbers(self.owner[at], index)), count)
        width = self.right.shape[1]
        inside = (rows >= 0) & (draw < width)
        values = self.right.ravel()[np.where(inside, rows * width + draw, 0)] if width else np.zeros(len(rows), np.int8)
        return np.where(inside & (values >= 0), values, np.nan)


def clean_draws(
    parts: Sequence[Part], images: JudgedImages, owner: I64, single: tuple[I64, I64, npt.NDArray[np.bool_]]
) -> CleanDraws:
    """Read the correctness of the held-out draws on clean images.

    Args:
        parts: parts that hold cells of clean images only, of several draws.
        images: the records.
        owner: see `CleanDraws`.
        single: of the clean images that are judged on one draw, number 0, as their records say: position of the cell,
            dataset index and correctness, [images].
    """
    keys, draws, right = [numbers(owner[single[0]], single[1])], [np.zeros(len(single[0]), np.int64)], [single[2]]
    for table in (t for part in parts for t in part.batches(DRAWS, _COLUMNS)):
        held = _chosen(table, table["held_out"])
        at, index = held["at"].to_numpy(), held["index"].to_numpy()
        label = images.label[images.rows(numbers(at, index))]
        keys.append(numbers(owner[at], index))
        draws.append(held["draw"].to_numpy().astype(np.int64))
        right.append((held["pred"].to_numpy() == label) & ~held["rejected"].to_numpy())
    draw = np.concatenate(draws)
    unique, row = np.unique(np.concatenate(keys), return_inverse=True)
    matrix = np.full((len(unique), int(draw.max()) + 1 if len(draw) else 0), -1, np.int8)
    # Clean images are judged once per threat; written backwards, the first verdicts win.
    matrix[row[::-1], draw[::-1]] = np.concatenate(right)[::-1]
    return CleanDraws(owner, Lookup(unique), matrix)


def _chosen(draws: pa.Table, rows: pa.ChunkedArray) -> pa.Table:
    """Return the rows that a column of booleans chooses, in one chunk; where it is all, no row is copied for it."""
    return (draws if pc.all(rows).as_py() else draws.filter(rows)).combine_chunks()


def _margins(draws: pa.Table, images: JudgedImages) -> tuple[I64, F64]:
    """Return (rows of the records, `margin_sel` of these) for whole cells."""
    draws = _chosen(draws, pc.invert(draws["held_out"]))
    rows = images.rows(numbers(draws["at"].to_numpy(), draws["index"].to_numpy()))
    margin, target = draws["margin"].to_numpy().astype(np.float64), images.target[rows]
    targeted = np.flatnonzero(target >= 0)
    if len(targeted):
        logits = _logits(draws)
        margin[targeted] = np.nan
        if logits is not None:
            margin[targeted] = _target_margin(logits[targeted].astype(np.float64), target[targeted])
    unique, group, count = np.unique(rows, return_inverse=True, return_counts=True)
    return unique, np.bincount(group, margin, len(unique)) / count


def _target_margin(logits: F64, target: I64) -> F64:
    """Return the largest other logit minus the target's, [rows] from [rows, K]."""
    at = np.arange(len(logits)), target
    of_target = logits[at]
    logits[at] = -np.inf
    return np.asarray(logits.max(1) - of_target)


def _votes(draws: pa.Table, images: JudgedImages, clean: CleanDraws, k: int | None) -> tuple[I64, dict[str, F64]]:
    """Return (rows of the records, votes of their held-out draws by column) for whole cells."""
    draws = _chosen(draws, draws["held_out"])
    keys = numbers(draws["at"].to_numpy(), draws["index"].to_numpy())
    # Those of single draws ascend already: nothing is moved.
    order: Any = slice(None) if (np.diff(keys) > 0).all() else np.argsort(keys, kind="stable")
    keys = keys[order]
    start = np.flatnonzero(np.diff(keys, prepend=-1))
    groups, count = keys[start], np.diff(start, append=len(keys))
    rows = images.rows(groups)
    label, target = images.label[rows], images.target[rows]
    predicted = draws["pred"].to_numpy()[order]
    # A refusal is a class of its own.
    pred = np.where(draws["rejected"].to_numpy()[order], -1, predicted)
    draw_target, draw_label = np.repeat(target, count), np.repeat(label, count)
    success = np.where(draw_target < 0, pred != draw_label, pred == draw_target) & (pred >= 0)
    before = clean.of(groups >> 32, groups & 0xFFFFFFFF, count, draws["draw"].to_numpy()[order].astype(np.int64))
    newly_wrong = np.add.reduceat(before * success, start) if len(groups) else np.zeros(0)
    logits = _logits(draws)
    by_vote, by_mean = np.full(len(groups), np.nan), np.full(len(groups), np.nan)
    for size in np.flatnonzero(np.bincount(count)).tolist():
        same = np.flatnonzero(count == size)
        if size == 1:
            only = start[same]
            by_vote[same] = pred[only] == label[same]
            by_mean[same] = predicted[only] == label[same]  # stored logits are rounded: close ones may tie
            continue
        for at in np.split(same, range(_IMAGES_PER_PASS, len(same), _IMAGES_PER_PASS)):
            members = start[at][:, None] + np.arange(size if k is None else min(k, size))
            by_vote[at] = majority(pred[members], label[at])
            if logits is not None:
                values = logits[order[members]]
                stored = np.isfinite(values).all((1, 2))  # older versions store no logits under -65,504
                by_mean[at] = np.where(stored, mean_logit(values, label[at]), np.nan)
    return rows, {"majority": by_vote, "mean_logit": by_mean, "newly_wrong": newly_wrong}


def votes(
    parts: Iterable[Part], images: JudgedImages, clean: CleanDraws, draws: I64, *, k: int | None = None
) -> dict[str, F64]:
    """Return the aggregated draws of every record.

    Args:
        parts: parts of a results folder.
        images: the records.
        clean: the draws of clean images.
        draws: planned draws of each cell, those for selection too, int64 [cells]; single draws need no logits.
        k: number of first draws that majority and mean logit take; None: all.

    Returns:
        Columns for the records: majority, mean_logit, newly_wrong (see `bench.analysis.results.Results`) of the
        held-out draws; margin_sel, the mean over selection draws of what the attack lowers: the margin of the label,
        or if targeted that of the best other class over the target (NaN without all logits, or without selection
        draws). Each is float64 [records].

    Raises:
        UserError: a file cannot be read.
    """
    names = ("majority", "mean_logit", "newly_wrong", "margin_sel")
    columns = {name: np.full(len(images.label), np.nan) for name in names}
    for part in parts:
        several = any(draws[at] > 1 for at in part.cells.values())
        for table in part.batches(DRAWS, _COLUMNS_OF_SEVERAL if several else _COLUMNS):
            rows, values = _votes(table, images, clean, k)
            for name, column in values.items():
                columns[name][rows] = column
            if several:
                rows, column = _margins(table, images)
                columns["margin_sel"][rows] = column
    return columns
