"""Pictures of the attacks on one defense: accuracy under each, and under several submissions of an image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
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
    place,
    rows,
    shortened,
    style,
)
from bench.spec.cell import NULLS
from bench.stats.proportions import rob_at_m, wilson
from bench.stats.voting import majority
from defenses.utils.errors import UserError

_MODES = {"exact": 0, "bpda": 1, "blind": 2}  # shape and colour of a gradient mode; further modes after them
_SETTING = ["dataset", "split", "indices", "norm", "eps", "targets"]
_CLEAN = "clean images"
_CURVE = ["attack", "m", "share", "low", "high"]
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
    shares = percent(frame[["robust_mean", "robust_low", "robust_high"]]).T
    for (marker, colour), at in _places_of(_looks(frame, numbers)).items():
        intervals(axes, shares[0, at], at, shares[1:, at], fmt=marker, color=colour)
    for mode, number in numbers.items():
        label = f"{mode} gradients" if mode else "no gradients"
        axes.add_line(Line2D([], [], marker=MARKERS[number], color=COLOURS[number], linestyle="none", label=label))
    if numbers:
        legend_above(axes)
    if ax is None:
        labels = max(label.get_window_extent().width for label in axes.get_yticklabels())
        place(axes, left=2.3 + 25.4 * labels / axes.figure.dpi, legend=-(-len(numbers) // 3))
    what = "accuracy" if frame["targets"].iloc[0] == "none" else "draws without the target"
    axes.set(xlim=(-2, 102), xlabel=f"{what} (%), 95 %")
    return axes


@style()
def draws(
    records: pd.DataFrame,
    *,
    votes: pd.DataFrame | None = None,
    defense: str | None = None,
    ax: Axes | None = None,
    submissions: int = 15,
) -> Axes:
    """Draw the accuracy of a random defense against M: all of M draws right, Rob(M), and the majority of M right.

    Args:
        records: rows of `bench.load_results`; the four attacks are drawn under which its accuracy is the least.
        votes: rows of `bench.load_draws`, for the dashed lines of the majority; None: none. Targeted threats have none.
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
    majorities = None if votes is None else majority_curves(frame, votes, submissions)
    return draw_curves(submission_curves(frame, submissions), majorities, str(frame["targets"].iloc[0]), ax)


@style()
def draw_curves(shares: pd.DataFrame, majorities: pd.DataFrame | None, targets: str, ax: Axes | None = None) -> Axes:
    """Draw curves against M, as `draws`.

    Args:
        shares: rows of `submission_curves`.
        majorities: rows of `majority_curves`; None: none.
        targets: of the threat.
        ax: where to draw; None: on a new figure.
    """
    axes = axes_of(ax, 70 if majorities is None else 84)
    looks: dict[str, dict[str, Any]] = {}
    for name, of in shares.groupby("attack", sort=False):
        number = len(looks.keys() - {_CLEAN})
        colour, marker = (MUTED, "o") if name == _CLEAN else (COLOURS[number], MARKERS[number])
        looks[str(name)] = {"color": colour, "marker": marker}
        axes.fill_between(of["m"], percent(of["low"]), percent(of["high"]), color=colour, alpha=0.15, linewidth=0)
        axes.plot(of["m"].to_numpy(), percent(of["share"]), label=shortened(str(name), _LONGEST), **looks[str(name)])
    what = "right in all of them" if targets == "none" else "none of them gives the target"
    both = majorities is not None and len(majorities) > 0
    if majorities is not None and both:
        for name, of in majorities.groupby("attack", sort=False):
            axes.plot(of["m"].to_numpy(), percent(of["share"]), linestyle="--", fillstyle="none", **looks[str(name)])
        axes.add_line(Line2D([], [], color=INK, linestyle="-", label="right in all of M"))
        axes.add_line(Line2D([], [], color=INK, linestyle="--", label="majority of M right"))
        what = "accuracy"
    axes.set(xlabel="M, submissions of an image", ylabel=f"{what} (%)", ylim=(-2, 102))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_above(axes, columns=1)
    if ax is None:
        place(axes, left=12.5, legend=len(looks) + (2 if both else 0))
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
    rows = []
    for name, of in _lines(records, attacks):
        withstood, draws, images = (of[name].to_numpy() for name in ("withstood", "draws", "image"))
        shares = [rob_at_m(withstood, draws, m) for m in range(1, min(submissions, int(draws.min())) + 1)]
        rows += [(name, m, *_share(images, right)) for m, right in enumerate(shares, 1)]
    return pd.DataFrame(rows, columns=_CURVE)


def majority_curves(
    records: pd.DataFrame, votes: pd.DataFrame, submissions: int = 15, attacks: int | None = _LINES
) -> pd.DataFrame:
    """Return the accuracy of a random defense that decides by the majority of the first M held-out draws, M odd.

    A tie with another class is wrong; a refusal is a class of its own.

    Args:
        records: as of `submission_curves`.
        votes: rows of `bench.load_draws` of its cells, whose other rows are left out.
        submissions: largest M; fewer where there are fewer draws.
        attacks: number of attacks; None: all, and uniform noise.

    Returns:
        A row per attack and odd M, as of `submission_curves`; none if targeted, where the label does not decide.
    """
    if records["targets"].ne("none").any():
        return pd.DataFrame(columns=_CURVE)
    ours = votes["held_out"].astype(bool)
    for name in ("defense", "norm", "eps"):
        ours &= votes[name] == records[name].iloc[0] if name in votes else True
    cast = dict(iter(votes[ours].groupby(["attack", "view"], sort=False, observed=True)))
    rows = []
    for name, of in _lines(records, attacks):
        of_attack = public(cast.get(tuple(of[["attack", "view"]].iloc[0]), votes.head(0)))
        of_attack = of_attack.sort_values(["training_seed", "image", "draw"], kind="stable")
        by_image = of_attack.groupby(["training_seed", "image"])
        count = int(by_image.size().min()) if len(of_attack) else 0
        most = min(submissions, count)
        first = of_attack[by_image.cumcount() < most]
        images = first["image"].to_numpy()[:: max(most, 1)]
        pred = first["pred"].where(~first["rejected"].astype(bool), -1).to_numpy().reshape(-1, max(most, 1))
        label = of.drop_duplicates("image").set_index("image")["label"].loc[images].to_numpy()
        rows += [(name, m, *_share(images, majority(pred[:, :m], label))) for m in range(1, most + 1, 2)]
    return pd.DataFrame(rows, columns=_CURVE)


def _lines(records: pd.DataFrame, attacks: int | None) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield clean images and the strongest attacks, with their records; of these, `withstood` counts draws."""
    untargeted = records["targets"] == "none"
    frame = public(records).assign(withstood=records["correct"].where(untargeted, records["draws"] - records["hits"]))
    groups = {_title(*map(str, key)): of for key, of in frame.groupby(["attack", "view"], sort=False)}
    attacked = {name: of for name, of in groups.items() if of["attack"].iloc[0] not in NULLS}
    strongest = sorted(attacked, key=lambda name: float((attacked[name]["withstood"] / attacked[name]["draws"]).mean()))
    shown = groups.keys() if attacks is None else {*strongest[:attacks], _CLEAN}
    yield from ((name, of) for name, of in groups.items() if name in shown)


def _share(images: npt.ArrayLike, right: npt.ArrayLike) -> tuple[float, float, float]:
    """Return the mean over images with its interval; of an image, the mean over trainings, which are no further ones.

    Args:
        images: index of each image, [rows].
        right: share or truth of each row, [rows].
    """
    image = np.unique(np.asarray(images), return_inverse=True)[1]
    shares = np.bincount(image, np.asarray(right, float)) / np.bincount(image)
    low, high = wilson(shares.mean() * len(shares), len(shares))
    return float(shares.mean()), float(low), float(high)


def _looks(frame: pd.DataFrame, numbers: dict[str, int]) -> list[tuple[str, str]]:
    """Return marker and colour of each row."""
    looks = []
    for attack, gradient in zip(frame["attack"], frame["gradient"], strict=True):
        number = numbers.get(str(gradient), 0)
        look = (MARKERS[number], COLOURS[number])
        looks.append(("d", INK) if attack == WORST else ("o", MUTED) if attack in NULLS else look)
    return looks


def _places_of(looks: list[tuple[str, str]]) -> dict[tuple[str, str], list[int]]:
    """Return the rows of each look."""
    return {look: [at for at, other in enumerate(looks) if other == look] for look in dict.fromkeys(looks)}


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
