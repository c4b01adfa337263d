"""Pictures of curves: accuracy against the radius, the effort of an attack, the severity of a corruption."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bench.plots.style import COLOURS, MARKERS, MUTED, axes_of, intervals, legend_above, percent, style
from bench.stats.proportions import wilson
from defenses.utils.errors import UserError

RADIUS = "accuracy falls with the radius"  # check of an audit, with the accuracy "at" each radius
_CHANCE = "chance at Linf 1/2"  # check whose "limit" is the accuracy of guessing
EFFORT = {  # what a check of an audit compares, in the order of effort
    "one step": ("iterative against single step", "single step"),
    "as evaluated": ("twice the iterations", "base"),
    "2× steps": ("twice the iterations", "doubled"),
    "2× restarts": ("twice the restarts", "doubled"),
    "2× copies": ("twice the EOT copies", "doubled"),
}
_AUDIT = ["results", "fingerprint"]  # tell the audits of one label at one threat apart, as of two trainings
_HEIGHT = 70
MOST = 12  # lines of a picture
Line = tuple[str, list[Any], list[float], Any]  # name, x, shares, ends of their intervals


@style()
def radius(audits: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the accuracy under the white box of an audit against the radius, a line for each defense, with intervals.

    A dashed line marks the radius of the evaluation, a dotted one the accuracy of guessing. Accuracy that does not fall
    to chance tells that gradients are masked.

    Args:
        audits: rows of `bench.load_audits` of one data set and norm.
        ax: where to draw; None: on a new figure.

    Raises:
        UserError: no audit measured it, or audits of several data sets or norms.
    """
    frame = radius_rows(audits)
    if frame[["dataset", "norm"]].drop_duplicates().shape[0] != 1:
        raise UserError("no audit, or audits of several data sets or norms; choose those of one")
    axes = _curves(ax, radius_lines(frame))
    for eps in dict.fromkeys(frame["eps"]):
        axes.axvline(float(Fraction(eps)), color=MUTED, linestyle="--", linewidth=0.8)
        axes.annotate(f" eps {eps}", (float(Fraction(eps)), 101), fontsize=6, va="top")
    limits = [numbers.get("limit") for numbers in audits.loc[audits["check"] == _CHANCE, "numbers"]]
    for chance in dict.fromkeys(limit for limit in limits if limit is not None):
        axes.axhline(100 * chance, color=MUTED, linestyle=":", linewidth=0.8)
        axes.annotate(
            "chance ", (1, 100 * chance), xycoords=("axes fraction", "data"), fontsize=6, ha="right", va="bottom"
        )
    axes.set(xlabel=f"{frame['norm'].iloc[0]} radius", ylabel="accuracy (%)")
    return axes


@style()
def convergence(audits: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the accuracy that an attack leaves against its effort: one step, as evaluated, twice steps or copies.

    Args:
        audits: rows of `bench.load_audits` of one data set, norm and radius.
        ax: where to draw; None: on a new figure.

    Raises:
        UserError: no audit measured it, or audits of several threats or data sets.
    """
    lines = effort_lines(audits)
    if not lines:
        raise UserError("no audit compares an attack with a longer one")
    if audits[["dataset", "norm", "eps"]].drop_duplicates().shape[0] != 1:
        raise UserError("audits of several threats or data sets; choose those of one")
    axes = _curves(ax, lines, apart=0.06, joined=False)
    axes.set_xticks(range(len(EFFORT)), [name.replace(" ", "\n", 1) for name in EFFORT])
    axes.set(ylabel="accuracy (%)")
    return axes


@style()
def corruptions(frame: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the mean accuracy over all corruptions against their severity, a line for each defense, with intervals.

    Severity 0 is the clean images. Intervals treat the corruptions of an image as one measurement. Without a point is a
    severity at which a defense lacks a corruption that another one has.

    Args:
        frame: rows of `bench.load_corruptions`.
        ax: where to draw; None: on a new figure.

    Raises:
        UserError: no corruption was measured.
    """
    lines = []
    every = frame[~frame["corruption"].isin(("clean", "mean")) & (frame["severity"].astype(str) != "mean")]
    every = every.assign(severity=every["severity"].astype(int))
    kinds = every.groupby("severity")["corruption"].nunique()
    for defense, of in frame.groupby("defense", sort=False):
        clean = of[of["corruption"] == "clean"]
        groups = every[every["defense"] == defense].groupby("severity")["accuracy"]
        means = groups.mean()[groups.size() == kinds.reindex(groups.size().index)]
        if means.empty:
            continue
        x = [*([0] if len(clean) else []), *(int(at) for at in means.index)]
        y = np.array([*clean["accuracy"].head(1), *means])
        lines.append((str(defense), x, y.tolist(), wilson(y * of["images"].iloc[0], of["images"].iloc[0])))
    if not lines:
        raise UserError("no corruption was measured")
    axes = _curves(ax, lines)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="severity", ylabel="accuracy (%)")
    return axes


@style()
def certified(frame: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the certified accuracy against the L2 radius, a line for each sigma, with intervals over images.

    Args:
        frame: rows of `bench.load_smoothing`.
        ax: where to draw; None: on a new figure.

    Raises:
        UserError: no rows.
    """
    if frame.empty:
        raise UserError("there are no certified radii")
    by = [name for name in ("defense", "sigma") if name in frame]
    lines = []
    for key, of in frame.groupby(by, sort=False):
        of = of.assign(at=of["radius"].map(lambda text: float(Fraction(str(text))))).sort_values("at")
        name = ", ".join(f"sigma {part:g}" if isinstance(part, float) else str(part) for part in key)
        lines.append((name, list(of["at"]), list(of["certified"]), (of["low"], of["high"])))
    axes = _curves(ax, lines)
    axes.set(xlabel="L2 radius", ylabel="certified accuracy (%)", xlim=(-0.02, None))
    return axes


def radius_rows(audits: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `bench.load_audits` that have accuracies at radii."""
    measured = [any(k.startswith("at ") and v is not None for k, v in n.items()) for n in audits["numbers"]]
    return audits[(audits["check"] == RADIUS) & np.array(measured, bool)]


def radius_lines(audits: pd.DataFrame) -> list[Line]:
    """Return the accuracies of each defense at radii."""
    lines: list[Line] = []
    for row in radius_rows(audits).to_dict("records"):
        found = {Fraction(k[3:]): v for k, v in row["numbers"].items() if k.startswith("at ") and v is not None}
        x = sorted(found)
        ends = wilson(np.array([found[at] for at in x]) * row["n_images"], row["n_images"])
        lines.append((str(row["defense"]), [float(at) for at in x], [found[at] for at in x], ends))
    return lines


def points_of(name: str, lines: Iterable[Line]) -> pd.DataFrame:
    """Return a row per point of some lines: `defense`, the x of a name, and `accuracy`, `low`, `high` in [0, 1]."""
    rows = [
        (line, at, share, float(low), float(high))
        for line, x, y, ends in lines
        for at, share, low, high in zip(x, y, *ends, strict=True)
    ]
    return pd.DataFrame(rows, columns=["defense", name, "accuracy", "low", "high"])


def effort_lines(audits: pd.DataFrame) -> list[Line]:
    """Return the accuracies of each defense under efforts of the attack, in its last audit, of those that have two."""
    lines: list[Line] = []
    for defense, each in audits.groupby("defense", sort=False):
        of = each[(each[_AUDIT] == each[_AUDIT].iloc[-1]).all(axis=1)]
        numbers = dict(zip(of["check"], of["numbers"], strict=True))
        found = {at: numbers.get(check, {}).get(key) for at, (check, key) in enumerate(EFFORT.values())}
        known = {at: value for at, value in found.items() if value is not None}
        if len(known) > 1:
            ends = wilson(np.array(list(known.values())) * of["n_images"].iloc[0], of["n_images"].iloc[0])
            lines.append((str(defense), list(known), list(known.values()), ends))
    return lines


def _curves(ax: Axes | None, lines: Iterable[Line], apart: float = 0, *, joined: bool = True) -> Axes:
    """Draw (name, x, shares, their ends) as lines with intervals.

    Args:
        ax: where to draw.
        lines: the lines.
        apart: distance of the points of neighbouring lines along x.
        joined: draw lines between the points.
    """
    drawn = list(lines)
    if len(drawn) > MOST:
        raise UserError(f"{len(drawn)} lines are too many for a picture; choose at most {MOST} of the defenses")
    axes = axes_of(ax, _HEIGHT + 3.5 * (len(drawn) // 2))
    for number, (name, x, y, (low, high)) in enumerate(drawn):
        at = np.asarray(x, float) + apart * (number - (len(drawn) - 1) / 2)
        dash = ("-", "--")[number // len(COLOURS) % 2] if joined else ""
        kind = {"color": COLOURS[number % len(COLOURS)], "fmt": f"{MARKERS[number % len(MARKERS)]}{dash}"}
        intervals(axes, at, percent(y), (percent(low), percent(high)), upright=True, label=name, **kind)
    axes.set_ylim(-2, 103)
    legend_above(axes, columns=2)
    return axes
