"""Numbers of each row of two runs on the images that both have, and the images that differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from bench.analysis.diff.cells import DIFFERENT, KINDS, RowCells
from bench.analysis.diff.side import NAMES, RowName, RunSide
from bench.analysis.public_names import public
from bench.analysis.summary import WORST
from bench.analysis.worst_case import worst_per_image
from bench.stats.paired import paired_difference

_GROUP = [name for name in NAMES if name not in ("attack", "view")]
_NUMBERS = ("n_old", "n_new", "n", "old_mean", "new_mean", "difference", "low", "high")
_IMAGES = ("differing", "tied", "lost", "won")
ROW_COLUMNS = (*NAMES, "state", *_NUMBERS, *_IMAGES, *(f"cells_{kind}" for kind in KINDS))
IMAGE_COLUMNS = (*NAMES, "image", "old", "new", "tie", "flip")


def compared_rows(old: RunSide, new: RunSide, cells: Mapping[RowName, RowCells]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows of two runs, each defense followed by its worst case, and the images that differ.

    Args:
        old: the old run.
        new: the new run.
        cells: of both, by row.

    Returns:
        Frames with the columns `ROW_COLUMNS` and `IMAGE_COLUMNS`, and `eps_value`, see
        `bench.analysis.diff.difference.Difference`.
    """
    rows: list[dict[str, object]] = []
    images: list[dict[str, object]] = []
    worst = [_worst(side) for side in (old, new)]
    groups: dict[tuple[object, ...], list[RowName]] = {}
    for name in cells:
        groups.setdefault(_group(name), []).append(name)
    for group, names in groups.items():
        for name in names:
            row = cells[name]
            shares = [
                side.records(keys).set_index("index")["accuracy"] for side, keys in ((old, row.old), (new, row.new))
            ]
            rows.append(_row(name, shares, row))
            images += _images(name, shares, row)
        of_group = [side.get(group) for side in worst]
        shares = [pd.Series(dtype=float) if of is None else of for of in of_group]
        if any(len(of) for of in shares):
            name = _worst_name(group)
            whole = _whole([cells[n] for n in names], shares)
            rows.append(_row(name, shares, whole))
            images += _images(name, shares, whole)
    frames = (pd.DataFrame(rows, columns=list(ROW_COLUMNS)), pd.DataFrame(images, columns=list(IMAGE_COLUMNS)))
    return public(frames[0]), public(frames[1])


def _group(name: RowName) -> tuple[object, ...]:
    return tuple(value for column, value in zip(NAMES, name, strict=True) if column in _GROUP)


def _worst_name(group: tuple[object, ...]) -> RowName:
    of = dict(zip(_GROUP, group, strict=True))
    return tuple(of.get(name, WORST if name == "attack" else "") for name in NAMES)


def _worst(side: RunSide) -> dict[tuple[object, ...], pd.Series]:
    """Return the shares that withstand the worst attack, by defense and setting and then by image."""
    frame = worst_per_image(side.results)
    return {tuple(group): rows.set_index("image")["robust"] for group, rows in frame.groupby(_GROUP, sort=False)}


def _whole(rows: list[RowCells], shares: list[pd.Series]) -> RowCells:
    """Return the cells of a worst case: an image differs in ties alone if it does so in every row."""
    old, new = shares
    common = old.index.intersection(new.index)
    differing = {int(i) for i in common if old[i] != new[i]}
    ties = set[int]().union(*(row.differing - row.beyond for row in rows))
    beyond = set[int]().union(*(row.beyond for row in rows))
    return RowCells(differing=differing, beyond=differing - (ties - beyond))


def _row(name: RowName, shares: list[pd.Series], cells: RowCells) -> dict[str, object]:
    """Return the columns of a row."""
    old, new = (of.dropna() for of in shares)
    common = old.index.intersection(new.index)
    numbers: dict[str, object] = {"n_old": len(old), "n_new": len(new), "n": len(common)}
    before, after = old[common].to_numpy(float), new[common].to_numpy(float)
    if len(common):
        paired = paired_difference(after, before)
        numbers |= {"old_mean": float(before.mean()), "new_mean": float(after.mean())}
        numbers |= {"difference": paired.difference, "low": paired.low, "high": paired.high}
    flips = _flips(before, after)
    numbers |= {"differing": len(cells.differing), "tied": len(cells.differing - cells.beyond)}
    numbers |= {"lost": int((flips == "lost").sum()), "won": int((flips == "won").sum())}
    return (
        dict(zip(NAMES, name, strict=True))
        | {"state": _state(cells)}
        | numbers
        | {f"cells_{kind}": n for kind, n in cells.count.items()}
    )


def _state(cells: RowCells) -> str:
    """Return "differs" for a row that differs beyond ties, else "ties", "agrees" (other bits) or "same"."""
    if cells.beyond or any(cells.count[kind] for kind in DIFFERENT):
        return "differs"
    return "ties" if cells.differing or cells.count["ties"] else "agrees" if cells.count["agree"] else "same"


def _flips(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return "lost" where an image was mostly right and is no more, "won" where it is the other way round, else ""."""
    right, still = before > 0.5, after > 0.5
    return np.where(right & ~still, "lost", np.where(~right & still, "won", ""))


def _images(name: RowName, shares: list[pd.Series], cells: RowCells) -> Iterator[dict[str, object]]:
    """Yield the images of a row that differ, in their order."""
    old, new = shares
    for index in sorted(cells.differing):
        before, after = float(old.get(index, np.nan)), float(new.get(index, np.nan))
        flip = str(_flips(np.array([before]), np.array([after]))[0])
        yield dict(zip(NAMES, name, strict=True)) | {
            "image": index,
            "old": before,
            "new": after,
            "tie": index not in cells.beyond,
            "flip": flip,
        }
