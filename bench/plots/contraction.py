"""Picture of a diagnostic of purifiers: how far they contract, against what attacks leave of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bench.plots.labels import name_points
from bench.plots.style import COLOURS, axes_of, intervals, legend_above, percent, style
from defenses.utils.errors import UserError


@style()
def contraction(rows: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the worst case of each purifier against its rate of contraction; a cross where the two disagree.

    Args:
        rows: the frame that `bench.contraction_agreement` returns: `defense`, `contraction`, `robust`, `says`, and,
            where they are known, `robust_low` and `robust_high`, the ends of an interval.
        ax: where to draw; None: on a new figure.

    Raises:
        UserError: no rows, or columns that are missing.
    """
    missing = [name for name in ("defense", "contraction", "robust", "says") if name not in rows]
    if missing:
        raise UserError(f"there is no column {', '.join(missing)}; give the frame of contraction_agreement")
    x, y = rows["contraction"].to_numpy(float), percent(rows["robust"])
    if not len(rows):
        raise UserError("there are no rows to draw")
    axes = axes_of(ax, 75)
    known = {"robust_low", "robust_high"} <= set(rows)
    upright = percent(rows[["robust_low", "robust_high"]]).T if known else np.stack([y, y])
    differ = rows["says"].ne("").to_numpy()
    for mask, marker, colour, label in (
        (~differ, "o", COLOURS[0], "no disagreement"),
        (differ, "X", COLOURS[1], "disagreement"),
    ):
        if mask.any():
            intervals(axes, x[mask], y[mask], upright[:, mask], upright=True, label=label, fmt=marker, color=colour)
    axes.set_xlim(max(0.0, 1.2 * x.min() - 0.2 * x.max()), 1.25 * x.max())
    axes.set_ylim(-4, max(np.nanmax([*upright[1], 10.0]) + 4, 12))
    axes.set(xlabel="rate of contraction under fixed noise", ylabel="worst case (%)")
    legend_above(axes)
    name_points(axes, x, y, list(rows["defense"]))
    return axes
