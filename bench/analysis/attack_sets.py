"""Questions per image and per class: which attack breaks what, and which classes hold."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from bench.analysis.columns import with_columns
from bench.analysis.public_names import public
from bench.analysis.results import load_results
from bench.analysis.rows import SETTING, TRAINING_SEED
from bench.analysis.worst_case import worst_per_image
from bench.spec.cell import NULLS
from bench.stats.proportions import wilson
from defenses.utils.errors import UserError

_ROW = ("defense", TRAINING_SEED, *SETTING)
_ATTACK = ["attack", "view"]
Source = str | Path | pd.DataFrame


@with_columns
def by_class(source: Source) -> pd.DataFrame:
    """Return clean and worst-case accuracy by class.

    Args:
        source: a results folder, or a frame of `load_results` or `benchmark`.

    Returns:
        A row per defense, training, setting and class. Columns: those of `purebench columns by_class`.

    Raises:
        UserError: no results there, or a damaged file.
    """
    worst = worst_per_image(source)
    groups = worst.groupby([*_ROW, "label"], sort=False)
    frame = groups.agg(n_images=("clean", "size"), clean_mean=("clean", "mean"), worst_mean=("robust", "mean"))
    for name in ("clean", "worst"):
        low, high = wilson(frame[f"{name}_mean"] * frame["n_images"], frame["n_images"])
        frame = frame.assign(**{f"{name}_low": low, f"{name}_high": high})
    names = ["n_images", *(f"{name}_{end}" for name in ("clean", "worst") for end in ("mean", "low", "high"))]
    frame = frame[names].reset_index().sort_values([*_ROW, "label"], kind="stable", ignore_index=True)
    return public(frame)


@with_columns
def broken_alone(source: Source) -> pd.DataFrame:
    """Return the images that one attack alone breaks.

    An attack breaks an image if the clean image is mostly right and the attack succeeds in more than half of the draws,
    the column `succeeded` of `load_results`.

    Args:
        source: a results folder, or a frame of `load_results` or `benchmark`.

    Returns:
        A row per such image. Columns: those of `purebench columns broken_alone`.

    Raises:
        UserError: no results there, or a damaged file.
    """
    rows = []
    for row, broken in _of_rows(source):
        alone = broken[broken.sum(axis=1) == 1]
        rows += [row | dict(zip(_ATTACK, alone.columns[int(line.argmax())], strict=True)) | {"image": image}
                 for image, line in zip(alone.index, alone.to_numpy(), strict=True)]  # fmt: skip
    return public(pd.DataFrame(rows, columns=[*_ROW, *_ATTACK, "image"]).astype({"image": "int64"}))


@with_columns
def cascade(source: Source) -> pd.DataFrame:
    """Return the order in which attacks break images: each time the one that breaks most of those that are left.

    Args:
        source: a results folder, or a frame of `load_results` or `benchmark`.

    Returns:
        A row per attack that breaks further images, strongest first. Columns: those of `purebench columns cascade`.

    Raises:
        UserError: no results there, or a damaged file.
    """
    rows = []
    for row, broken in _of_rows(source):
        values, taken = broken.to_numpy(), np.zeros(len(broken), bool)
        for step in range(1, values.shape[1] + 1):
            new = (values & ~taken[:, None]).sum(0)
            best = int(new.argmax())
            if not new[best]:
                break
            taken |= values[:, best]
            counts = {"alone": values[:, best].sum(), "new": new[best], "broken": taken.sum(), "left": (~taken).sum()}
            rows.append(row | {"step": step, **dict(zip(_ATTACK, broken.columns[best], strict=True)), **counts})
    counted = ["alone", "new", "broken", "left"]
    frame = pd.DataFrame(rows, columns=[*_ROW, "step", *_ATTACK, *counted])
    return public(frame.astype(dict.fromkeys(counted, "int64")))


@with_columns
def agreement(source: Source) -> pd.DataFrame:
    """Return how far each two attacks break the same images.

    Args:
        source: a results folder, or a frame of `load_results` or `benchmark`.

    Returns:
        A row per two attacks. Columns: those of `purebench columns agreement`.

    Raises:
        UserError: no results there, or a damaged file.
    """
    rows = []
    for row, broken in _of_rows(source):
        for a, b in combinations(broken.columns, 2):
            names = dict(zip(("attack_a", "view_a", "attack_b", "view_b"), (*a, *b), strict=True))
            rows.append(row | names | _counts(broken[a].to_numpy(), broken[b].to_numpy()))
    columns = ["attack_a", "view_a", "attack_b", "view_b", "both", "only_a", "only_b", "neither", "jaccard", "kappa"]
    return public(pd.DataFrame(rows, columns=[*_ROW, *columns]))


def _counts(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Return the numbers of images that two attacks break, and two measures of agreement."""
    both, only_a, only_b, neither = (int(mask.sum()) for mask in (a & b, a & ~b, ~a & b, ~a & ~b))
    n, either = len(a), both + only_a + only_b
    expected = (a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())) if n else 1.0
    kappa = ((both + neither) / n - expected) / (1 - expected) if expected < 1 else float("nan")
    counts = {"both": both, "only_a": only_a, "only_b": only_b, "neither": neither}
    return counts | {"jaccard": both / either if either else float("nan"), "kappa": kappa}


def _of_rows(source: Source) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Yield each defense in each setting, and which of its images each attack breaks, bool [images, attacks].

    Images whose clean draws are mostly wrong are left out: nothing can break them.
    Attacks with failed cells, rows of a known seed, and images without a verdict of some attack are left out, so that
    all attacks are compared on the same images.
    """
    frame = public(source) if isinstance(source, pd.DataFrame) else load_results(source)
    if missing := [
        name for name in (*_ROW, *_ATTACK, "image", "clean", "succeeded", "status", "seed_known") if name not in frame
    ]:
        raise UserError(f'the frame has no column "{missing[0]}"; give rows of what benchmark or load_results returns')
    frame = frame[~frame["attack"].isin(NULLS) & ~frame["seed_known"] & ~(frame["clean"] <= 0.5)]
    failed = frame[frame["status"] != "ok"].groupby([*_ROW, *_ATTACK], sort=False).size().index
    for key, rows in frame.groupby(list(_ROW), sort=False):
        attacks = [a for a in rows.groupby(_ATTACK, sort=False).size().index if (*key, *a) not in failed]
        judged = rows[rows["status"] == "ok"]
        table = judged.pivot_table(index="image", columns=_ATTACK, values="succeeded", aggfunc="first", sort=False)
        table = table.reindex(columns=pd.MultiIndex.from_tuples(attacks, names=_ATTACK)).dropna()
        if len(attacks) and len(table):
            yield dict(zip(_ROW, key, strict=True)), table.astype(bool).sort_index()
