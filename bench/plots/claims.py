"""The picture of published claims against what was measured."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from bench.plots.labels import name_points
from bench.plots.style import COLOURS, MARKERS, MUTED, axes_of, intervals, legend_above, percent, style
from defenses.utils.errors import UserError

_VERDICTS = ("refuted", "consistent", "not reached", "not comparable")


@style()
def claims(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw measured against claimed robust accuracy; shape and colour tell the verdict, which has both intervals.

    Points below the diagonal are of rows that hold less than was claimed. Where data set, threat or network is another,
    a point says "not comparable", and its distance from the diagonal means nothing.

    Args:
        table: rows of `bench.claims_table`.
        ax: where to draw; None: on a new figure.

    Raises:
        UserError: no claim with a measured row.
    """
    frame = table[table["claimed_robust"].notna() & table["measured_robust"].notna()]
    if frame.empty:
        raise UserError("no claim has a measured row beside it")
    axes = axes_of(ax, 84)
    axes.plot([0, 100], [0, 100], color=MUTED, linestyle="--", linewidth=0.8)
    x, y = percent(frame["claimed_robust"]), percent(frame["measured_robust"])
    for number, verdict in enumerate(_VERDICTS):
        mask = (frame["verdict"] == verdict).to_numpy()
        if not mask.any():
            continue
        if verdict == "not comparable":
            axes.plot(x[mask], y[mask], MARKERS[number], color=MUTED, alpha=0.6, label=verdict)
            continue
        kind: Any = {"color": COLOURS[number], "capsize": 0, "elinewidth": 0.5}
        ends = [percent(frame[f"{side}_{end}"][mask]) for side in ("claimed", "measured") for end in ("low", "high")]
        intervals(axes, x[mask], y[mask], ends[:2], fmt="none", **kind)
        intervals(axes, x[mask], y[mask], ends[2:], upright=True, fmt=MARKERS[number], label=verdict, **kind)
    axes.set(xlim=(-2, 102), ylim=(-2, 102), xlabel="claimed (%)", ylabel="measured here (%)", aspect="equal")
    legend_above(axes, columns=2)
    compared = (frame["verdict"] != "not comparable").to_numpy()
    name_points(axes, x[compared], y[compared], list(frame["defense"][compared]))
    return axes
