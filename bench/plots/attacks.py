"""Pictures of the attacks on one defense: accuracy under each, and under several submissions of an image."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from bench.analysis.public_names import public
from bench.analysis.records import CLEAN
from bench.analysis.summary import WORST
from bench.plots.style import (
    COLOURS,
    INK,
    MARKERS,
    MUTED,
    axes_of,
    intervals,
    legend_above,
    percent,
    rows,
    shortened,
    style,
)
from bench.spec.cell import NULLS
from bench.stats.proportions import rob_at_m, wilson
from defenses.utils.errors import UserError

_MODES = {"exact": 0, "bpda": 1, "blind": 2}  # shape and colour of a gradient mode; further modes after them
_SETTING = ["dataset", "split", "indices", "norm", "eps", "targets"]
_CLEAN = "clean images"
_LINES = 4  # attacks of `draws`
_LONGEST = 44  # characters of the name of an attack


@style()
def attacks(summary: pd.DataFrame, *, defense: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw the accuracy of a defense under each attack with its interval, the strongest on top.

    Colour and shape tell the gradients that the attacker has.

    Args:
        summary: rows of `bench.summary`.
        defense: label; None: the only one.
        ax: where to draw; None: on a new figure.

    Raises:
        UserError: no such defense, several ones or several threats, or no attack with a result.
    """
    frame = _of_defense(summary, defense)
    frame = frame[frame["robust_mean"].notna()].copy()
    if frame[_SETTING].drop_duplicates().shape[0] != 1:
        raise UserError("the rows are of no threat or of several; choose those of one")
    clean, worst = frame["attack"].isin(NULLS), frame["attack"] == WORST
    frame = pd.concat([frame[worst], frame[~clean & ~worst].sort_values("robust_mean", kind="stable"), frame[clean]])
    axes = axes_of(ax, 22 + 4.4 * len(frame), 120)
    rows(axes, [_title(*row) for row in frame[["attack", "view"]].itertuples(index=False)], _LONGEST)
    numbers = _numbers(frame[~frame["attack"].isin((*NULLS, WORST))]["gradient"])
    for (marker, colour), of in frame.assign(at=range(len(frame))).groupby(_look(frame, numbers), sort=False):
        ends = [percent(of["robust_low"]), percent(of["robust_high"])]
        intervals(axes, percent(of["robust_mean"]), of["at"], ends, fmt=marker, color=colour)
    for mode, number in numbers.items():
        label = f"{mode} gradients" if mode else "no gradients"
        axes.add_line(Line2D([], [], marker=MARKERS[number], color=COLOURS[number], linestyle="none", label=label))
    if numbers:
        legend_above(axes)
    what = "accuracy" if frame["targets"].iloc[0] == "none" else "draws without the target"
    axes.set(xlim=(-2, 102), xlabel=f"{what} (%), 95 %")
    return axes


@style()
def draws(records: pd.DataFrame, *, defense: str | None = None, ax: Axes | None = None, submissions: int = 15) -> Axes:
    """Draw Rob(M) of a random defense: the share of images that withstand all of M submissions, with its interval.

    Args:
        records: rows of `bench.load_results`; the four attacks are drawn under which its accuracy is the least.
        defense: label; None: the only one.
        ax: where to draw; None: on a new figure.
        submissions: largest M; fewer where there are fewer draws.

    Raises:
        UserError: no such defense, several ones or several threats, or a single draw of an image.
    """
    frame = _of_defense(records, defense)
    if frame[["dataset", "split", "norm", "eps", "targets"]].drop_duplicates().shape[0] != 1:
        raise UserError("the records are of no threat or of several; choose those of one")
    frame = frame[(frame["status"] == "ok") & (frame["draws"] > 1)]
    if frame.empty:
        raise UserError("no image has more than one draw; Rob(M) is of random defenses")
    axes = axes_of(ax, 70)
    curves = submission_curves(frame, submissions).groupby("attack", sort=False)
    for number, (name, of) in enumerate(curves):
        colour, marker = (MUTED, "o") if name == _CLEAN else (COLOURS[number], MARKERS[number])
        axes.fill_between(of["m"], percent(of["low"]), percent(of["high"]), color=colour, alpha=0.15, linewidth=0)
        label = shortened(str(name), _LONGEST)
        axes.plot(of["m"].to_numpy(), percent(of["share"]), marker=marker, color=colour, label=label)
    what = "right in all of them" if frame["targets"].iloc[0] == "none" else "none of them gives the target"
    axes.set(xlabel="M, submissions of an image", ylabel=f"{what} (%)", ylim=(-2, 102))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_above(axes, columns=1)
    return axes


def submission_curves(records: pd.DataFrame, submissions: int = 15, attacks: int | None = _LINES) -> pd.DataFrame:
    """Return Rob(M) of one random defense on clean images and under its strongest attacks.

    Args:
        records: its rows of `bench.load_results` with several draws of an image.
        submissions: largest M; fewer where there are fewer draws.
        attacks: number of attacks; None: all, and uniform noise.

    Returns:
        A row per attack and M: `attack`: str; `m`: int64; `share`, `low`, `high`: float64 in [0, 1].
    """
    untargeted = records["targets"] == "none"
    frame = public(records).assign(withstood=records["correct"].where(untargeted, records["draws"] - records["hits"]))
    groups = {_title(*map(str, key)): of for key, of in frame.groupby(["attack", "view"], sort=False)}
    attacked = {name: of for name, of in groups.items() if of["attack"].iloc[0] not in NULLS}
    strongest = sorted(attacked, key=lambda name: float((attacked[name]["withstood"] / attacked[name]["draws"]).mean()))
    shown = groups.keys() if attacks is None else {*strongest[:attacks], _CLEAN}
    lines = {name: of for name, of in groups.items() if name in shown}
    rows = []
    for name, of in lines.items():
        withstood, draws, images = (of[name].to_numpy() for name in ("withstood", "draws", "image"))
        image = np.unique(images, return_inverse=True)[1]
        for m in range(1, min(submissions, int(draws.min())) + 1):
            # Mean over trainings: they are no further images.
            shares = np.bincount(image, rob_at_m(withstood, draws, m)) / np.bincount(image)
            low, high = wilson(shares.mean() * len(shares), len(shares))
            rows.append((name, m, float(shares.mean()), float(low), float(high)))
    return pd.DataFrame(rows, columns=["attack", "m", "share", "low", "high"])


def _look(frame: pd.DataFrame, numbers: dict[str, int]) -> pd.Series:
    """Return marker and colour of each row."""
    looks = []
    for attack, gradient in zip(frame["attack"], frame["gradient"], strict=True):
        number = numbers.get(str(gradient), 0)
        look = (MARKERS[number], COLOURS[number])
        looks.append(("d", INK) if attack == WORST else ("o", MUTED) if attack in NULLS else look)
    return pd.Series(looks, frame.index)


def _of_defense(frame: pd.DataFrame, defense: str | None) -> pd.DataFrame:
    """Return the rows of a defense."""
    known = [str(label) for label in frame["defense"].unique()]
    if defense is None and len(known) != 1:
        raise UserError(f"name one defense: {', '.join(known[:5])}" if known else "there are no rows")
    chosen = known[0] if defense is None else defense
    if chosen not in known:
        raise UserError(f'no defense "{chosen}" in the rows; they have {", ".join(known[:5])}')
    return frame[frame["defense"] == chosen]


def _title(attack: str, view: str) -> str:
    if attack in NULLS:
        return {CLEAN: _CLEAN, "uniform": "uniform noise"}.get(attack, attack)
    return f"{attack}, {view}" if view else attack


def _numbers(gradients: pd.Series) -> dict[str, int]:
    """Return the number of the shape and colour of each gradient mode: those of `_MODES` first, others after them."""
    found = [str(mode) for mode in dict.fromkeys(gradients)]
    others = [mode for mode in found if mode not in _MODES]
    numbers = _MODES | {mode: (len(_MODES) + at) % len(MARKERS) for at, mode in enumerate(others)}
    return {mode: numbers[mode] for mode in sorted(found, key=lambda mode: numbers[mode])}
