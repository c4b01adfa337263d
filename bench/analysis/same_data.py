"""Refuse comparisons of results on different versions of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.analysis.public_names import public
from bench.analysis.results import load_results
from bench.store.parts import stored
from defenses.utils.errors import UserError


def check_same_data(
    source: str | Path | pd.DataFrame, other: str | Path | pd.DataFrame, settings: Sequence[tuple[Any, ...]]
) -> None:
    """Refuse folders with different versions of a data set, and frames with different clean images.

    Args:
        source: a results folder or a frame.
        other: another one.
        settings: values of `bench.analysis.rows.SETTING` that both have.

    Raises:
        UserError: their revisions or index lists differ.
    """
    if isinstance(source, pd.DataFrame) or isinstance(other, pd.DataFrame):
        frames = (public(f) if isinstance(f, pd.DataFrame) else load_results(f) for f in (source, other))
        _check_same_images(*frames)
        return
    versions = []
    for results in map(Path, (source, other)):
        lines = [line for line, _ in stored(results / "parts").values()]
        versions.append({(x["dataset"], x["split"], x["indices"], *x["identity"]["data"][2:4]) for x in lines})
    for setting in settings:
        left, right = ({v for v in keys if v[:3] == setting[:3]} for keys in versions)
        if left != right:
            data = " ".join(setting[:3])
            raise UserError(f"{source} and {other} hold other versions of {data}; run one of them again")


def _check_same_images(frame: pd.DataFrame, other: pd.DataFrame) -> None:
    """Refuse frames in which an image of one data set has different pixels."""
    image = ["dataset", "split", "image"]
    first, second = (f.loc[f["image"] >= 0, [*image, "sha"]].drop_duplicates() for f in (frame, other))
    differ = first.merge(second, on=image).query("sha_x != sha_y")
    if len(differ):
        dataset, split, index = differ.iloc[0][image]
        raise UserError(f"the frames hold other versions of image {index} of {dataset} {split}; run one of them again")
