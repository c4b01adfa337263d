"""Picture of the numbers of an audit's checks, each with the side of its limit on which it fails."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from bench.plots.style import COLOURS, MARKERS, MUTED, SHADE, axes_of, intervals, legend_above, percent, rows, style
from defenses.utils.errors import UserError

_VALUES = ("difference", "share", "accuracy", "attack")  # numbers of a check that have an interval
_AT_LEAST = "attack"  # the value that must reach its limit; the others must not exceed theirs
_SPREAD = 0.7  # of a row, over which its defenses lie
MOST = 12  # defenses of a picture


@style()
def checks(audits: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw what each check of an audit measures, with its interval; it fails where all of that lies in the shade.

    A row a check, a mark a defense: differences of the accuracy under two attacks, positive where the attack that
    should be the weaker one is the stronger; accuracies and shares of images. Outcomes of all checks are in `audit`.

    Args:
        audits: rows of `bench.load_audits` of one data set, norm and radius.
        ax: where to draw; None: on a new figure.

    Raises:
        UserError: no check with an interval, audits of several threats or data sets, or more than 12 defenses.
    """
    frame = check_rows(audits)
    if audits[["dataset", "norm", "eps"]].drop_duplicates().shape[0] != 1 or frame.empty:
        raise UserError("no audits with numbers, or audits of several threats; choose those of one")
    labels, known = list(dict.fromkeys(frame["defense"])), {*frame["check"]}
    names = [name for name in dict.fromkeys(audits["check"]) if name in known]
    if len(labels) > MOST:
        raise UserError(f"{len(labels)} defenses are too many for a picture; choose at most {MOST}")
    axes = axes_of(ax, 26 + len(names) * (4.6 + 0.7 * len(labels)) + 3.5 * (len(labels) // 2), 120)
    ends = percent(frame[["low", "high", "limit"]])
    left, right = min(np.nanmin(ends), 0) - 4, max(np.nanmax(ends), 0) + 4
    for row in frame.drop_duplicates(["check", "limit"]).to_dict("records"):
        at, edge = names.index(row["check"]) - 0.46, 100 * row["limit"]
        start, end = (left, edge) if row["at_least"] else (edge, right)
        axes.add_patch(Rectangle((start, at), end - start, 0.92, facecolor=SHADE, linewidth=0, zorder=0))
        axes.plot([edge, edge], [at, at + 0.92], color=MUTED, linewidth=0.8)
    rows(axes, names)
    for number, label in enumerate(labels):
        of = frame[frame["defense"] == label]
        shift = _SPREAD * ((number + 0.5) / len(labels) - 0.5)
        look: dict[str, Any] = {"fmt": MARKERS[number % len(MARKERS)], "color": COLOURS[number % len(COLOURS)]}
        if number >= len(COLOURS):
            look["markerfacecolor"] = "none"
        places = [names.index(check) + shift for check in of["check"]]
        intervals(axes, percent(of["value"]), places, percent(of[["low", "high"]]).T, label=label, **look)
    axes.set(xlim=(left, right), xlabel="difference of accuracies, or share of images (%)")
    legend_above(axes, columns=2)
    return axes


def check_rows(audits: pd.DataFrame) -> pd.DataFrame:
    """Return the checks that have a number with an interval and a limit.

    Args:
        audits: rows of `bench.load_audits`.

    Returns:
        Columns `defense`, `check`, `measured` (what `value` is: "difference", "share", ...), `value`, `low`, `high`,
        `limit` as shares or differences of them, and `at_least`: the limit must be reached, not kept.
    """
    found = []
    for row in audits.drop_duplicates(["defense", "check"], keep="last").to_dict("records"):
        numbers = row["numbers"]
        limit = numbers.get("tolerance", numbers.get("limit"))
        kind = next((name for name in _VALUES if numbers.get(name) is not None), None)
        if kind is not None and None not in (limit, numbers.get("low"), numbers.get("high")):
            ends = (float(numbers[name]) for name in (kind, "low", "high"))
            found.append((str(row["defense"]), str(row["check"]), kind, *ends, float(limit), kind == _AT_LEAST))
    columns = ["defense", "check", "measured", "value", "low", "high", "limit", "at_least"]
    return pd.DataFrame(found, columns=columns)
