"""Pictures of a leaderboard: ranks, clean against robust accuracy, cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from pandas._libs.missing import NAType

from bench.plots.labels import name_points
from bench.plots.style import (
    COLOURS,
    MUTED,
    PAPER,
    SHADE,
    WIDTH,
    axes_of,
    intervals,
    legend_above,
    log_axis,
    percent,
    rows,
    style,
)
from defenses.utils.errors import UserError

_SETTING = ["results", "board", "dataset", "split", "indices", "norm", "eps", "targets"]
_FEW = 12  # points whose names find room in a column of a paper


@style()
def ranks(leaderboard: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the worst case of each defense with its interval and its clean accuracy, the best on top.

    Groups of defenses whose ranges of ranks overlap share a shade; a cross marks a defense without a rank.

    Args:
        leaderboard: rows of `bench.leaderboard` of one board and threat.
        ax: where to draw; None: on a new figure.

    Raises:
        UserError: no rows, or rows of several boards or threats.
    """
    frame = one_setting(leaderboard).reset_index(drop=True)
    axes = axes_of(ax, 22 + 3.6 * len(frame))
    ranked = frame["rank_low"].notna()
    ends = [_range(low, high) for low, high in frame[["rank_low", "rank_high"]].itertuples(index=False)]
    rows(axes, list(frame["defense"]), ends=ends)
    for number, (first, last) in enumerate(_groups(frame)):
        if number % 2 == 0:
            axes.axhspan(first - 0.5, last + 0.5, color=SHADE, zorder=0, linewidth=0)
    places = np.arange(len(frame))
    clean = percent(frame["clean_mean"])
    axes.plot(clean, places, "o", markerfacecolor=PAPER, markeredgecolor=MUTED, label="clean accuracy", zorder=2)
    for mask, marker, colour, label in (
        (ranked, "o", COLOURS[0], "worst case, 95 %"),
        (~ranked, "X", COLOURS[1], "worst case, no rank"),
    ):
        if mask.any():
            worst, *ends = (percent(frame[name][mask]) for name in ("worst_mean", "worst_low", "worst_high"))
            intervals(axes, worst, places[mask], ends, fmt=marker, color=colour, label=label, zorder=3)
    _share_axis(axes, "x", "accuracy (%)")
    legend_above(axes)
    return axes


@style()
def clean_robust(leaderboard: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the worst case of each defense against its clean accuracy, with both intervals.

    Args:
        leaderboard: rows of `bench.leaderboard` of one board and threat.
        ax: where to draw; None: on a new figure.

    Raises:
        UserError: no rows, or rows of several boards or threats.
    """
    frame = one_setting(leaderboard)
    axes = axes_of(ax, *_size(len(frame)))
    x, y = percent(frame["clean_mean"]), percent(frame["worst_mean"])
    _kinds(axes, frame, x, y, percent(frame[["clean_low", "clean_high"]]).T)
    low = np.nanmin([*x, *percent(frame["clean_low"]), 99.0])
    axes.set_xlim(low - 0.03 * (100 - low), 100)
    axes.set_ylim(-4, max(np.nanmax([*percent(frame["worst_high"]), 10.0]) + 4, 12))
    axes.set(xlabel="clean accuracy (%)", ylabel="worst case (%)")
    legend_above(axes)
    name_points(axes, x, y, list(frame["defense"]))
    return axes


@style()
def cost(leaderboard: pd.DataFrame, *, ax: Axes | None = None, unit: str = "evaluations") -> Axes:
    """Draw the worst case of each defense against what its attacks took for an image.

    Args:
        leaderboard: rows of `bench.leaderboard` of one board and threat.
        ax: where to draw; None: on a new figure.
        unit: "evaluations" (forward passes and twice the backward passes) or "seconds".

    Raises:
        UserError: no rows with costs, rows of several boards or threats, or another unit.
    """
    if unit not in ("evaluations", "seconds"):
        raise UserError(f'unit is "{unit}"; it must be "evaluations" or "seconds"')
    column = f"{unit}_per_image"
    frame = one_setting(leaderboard)
    frame = frame[frame[column] > 0]
    if frame.empty:
        raise UserError(f"no row has {unit}; none was counted")
    axes = axes_of(ax, *_size(len(frame)))
    x, y = frame[column].to_numpy(float), percent(frame["worst_mean"])
    log_axis(axes)
    _kinds(axes, frame, x, y)
    axes.set_autoscale_on(False)  # of one point alone matplotlib warns
    axes.set_xlim(x.min() / 2, x.max() * 3)
    axes.set_ylim(-4, max(np.nanmax([*percent(frame["worst_high"]), 10.0]) + 4, 12))
    axes.set(xlabel=f"{unit} of all attacks for an image", ylabel="worst case (%)")
    legend_above(axes)
    name_points(axes, x, y, list(frame["defense"]))
    return axes


def _size(points: int) -> tuple[float, float]:
    """Return height and width of a picture of named points, in millimetres: larger where there are many names."""
    return (75, WIDTH) if points <= _FEW else (110, 120)


def one_setting(leaderboard: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with a worst case; refuse those of several boards or threats."""
    frame = leaderboard[leaderboard["worst_mean"].notna()]
    settings = frame[_SETTING].drop_duplicates()
    if len(settings) > 1:
        differ = [name for name in _SETTING if settings[name].nunique() > 1]
        raise UserError(f"the rows differ in {', '.join(differ)}; choose those of one board and threat")
    if frame.empty:
        raise UserError("no row has a worst case")
    return frame


def _range(low: int | NAType, high: int | NAType) -> str:
    """Return a range of ranks as text."""
    if pd.isna(low):
        return "no rank"
    return f"{low}" if low == high else f"{low}–{high}"


def _groups(frame: pd.DataFrame) -> Iterator[tuple[int, int]]:
    """Yield the first and last row of each group whose ranges of ranks overlap."""
    first, highest = 0, 0
    for at, (low, high) in enumerate(frame[["rank_low", "rank_high"]].itertuples(index=False)):
        if at and (pd.isna(low) or low > highest):
            yield first, at - 1
            first = at
        if pd.isna(low):
            return
        highest = max(highest, int(high))
    yield first, len(frame) - 1


def _kinds(axes: Axes, frame: pd.DataFrame, x: object, y: object, ends: object = None) -> None:
    """Draw deterministic and random defenses, and those without a rank, each with its shape."""
    x, y, ends = np.asarray(x, float), np.asarray(y, float), None if ends is None else np.asarray(ends, float)
    ranked, random = frame["rank_low"].notna().to_numpy(), frame["stochastic"].to_numpy(bool)
    upright = percent(frame[["worst_low", "worst_high"]]).T
    plain: Any = {"capsize": 0, "elinewidth": 0.6, "clip_on": False}  # a point at 100 % is whole
    for mask, marker, colour, label in (
        (ranked & ~random, "o", COLOURS[0], "deterministic"),
        (ranked & random, "s", COLOURS[1], "random"),
        (~ranked, "X", MUTED, "no rank"),
    ):
        if not mask.any():
            continue
        if ends is not None:
            intervals(axes, x[mask], y[mask], ends[:, mask], fmt="none", color=colour, **plain)
        intervals(
            axes, x[mask], y[mask], upright[:, mask], upright=True, label=label, fmt=marker, color=colour, **plain
        )


def _share_axis(axes: Axes, which: str, label: str) -> None:
    axes.set(**{f"{which}lim": (-2, 102), f"{which}label": label})
