"""Pictures of matrices: images by defense, checks of audits by defense."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgba
from matplotlib.lines import Line2D

from bench.analysis.public_names import public
from bench.plots.style import COLOURS, axes_of, legend_above, rows, shortened, style
from defenses.utils.arrays import F64, I64
from defenses.utils.errors import UserError

_IMAGES, _DEFENSES = 500, 60  # most that are drawn one by one
_SETTING = ["dataset", "split", "indices", "norm", "eps", "targets"]
_WRONG = "wrong without an attack"
# Of attacks; the last two are of further attacks and of none. In a picture of cells a dark screen changes none.
_COLOURS = ("#0073b3", *COLOURS[1:5], "#6b7480")
_NO_VERDICT = (*to_rgba(_COLOURS[-1])[:3], 0.25)
_DARK = "#10131a"  # on a pale cell, also on a dark screen
_STATUS = {  # symbol and shade of the outcome of a check
    "pass": ("✓", "#cfe8dd"),
    "fail": ("✗", "#f6d2bd"),
    "not measurable": ("?", "#f3e9c4"),
    "not applicable": ("–", "#e4e8ec"),
}


@style()
def matrix(worst: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw which attack breaks each image of each defense: the colour tells the attack, its strength how many draws.

    Where all draws are right, nothing is drawn. Images are sorted by difficulty and defenses by their mean. More than
    500 images are binned, in the colour of the attack that breaks most of a bin; of more than 60 defenses the first are
    drawn.

    Args:
        worst: rows of `bench.worst_per_image` of one board and threat.
        ax: where to draw; None: on a new figure.

    Raises:
        UserError: no rows, or rows of several threats.
    """
    if worst[_SETTING].drop_duplicates().shape[0] != 1:
        raise UserError("there are no rows, or rows of several threats; choose those of one")
    frame = breakers(worst)
    shares = frame.pivot_table(index="defense", columns="image", values="accuracy", aggfunc="mean", sort=False)
    shares = shares.loc[shares.mean(axis=1).sort_values(ascending=False, kind="stable").index[:_DEFENSES]]
    shares = shares[shares.mean().sort_values(ascending=False, kind="stable").index]
    names, count = [str(name) for name in shares.index], shares.shape[1]
    edges = np.linspace(0, count, min(count, _IMAGES) + 1).astype(int)[:-1]
    colours = _colours_of(frame)
    judged = np.add.reduceat(shares.notna().to_numpy(), edges, axis=1)  # images of a bin; others have no verdict
    lost = _lost(frame, shares, {name: list(_COLOURS).index(colour) for name, colour in colours.items()}, edges)
    cells = np.array([to_rgba(colour) for colour in _COLOURS])[np.argmax(lost, axis=0)]
    cells[..., 3] = np.divide(lost.sum(0), judged, out=np.zeros(judged.shape), where=judged > 0)  # on any background
    axes = axes_of(ax, 30 + 3.6 * len(names), 120)
    where: Any = {"aspect": "auto", "extent": (0, count, len(names) - 0.5, -0.5)}
    axes.imshow(cells, **where)
    looks: dict[Any, list[str]] = {}
    for name, colour in colours.items():
        looks.setdefault(colour, []).append(name)
    if (judged == 0).any():
        axes.imshow(np.where((judged == 0)[..., None], _NO_VERDICT, 0.0), **where)
        looks[_NO_VERDICT] = ["no verdict"]
    rows(axes, names, 28)
    axes.grid(visible=False)
    axes.set_xlabel(f"{count} images, the easiest first")
    for colour, named in looks.items():
        label = shortened(named[0], 30) if len(named) == 1 else f"{len(named)} others"
        axes.add_line(Line2D([], [], marker="s", linestyle="none", color=colour, label=label))
    legend_above(axes, columns=2)
    return axes


def breakers(worst: pd.DataFrame) -> pd.DataFrame:
    """Return what breaks each image.

    Args:
        worst: rows of `bench.worst_per_image`.

    Returns:
        The rows with `by`, str: the attack under which fewer draws are right than on the clean image;
        "wrong without an attack"; "" where all draws are right.
    """
    frame = public(worst).reset_index(drop=True)
    by = frame["attack"].astype(str).where(frame["accuracy"] < frame["clean"], _WRONG)
    return frame.assign(by=by.where(frame["accuracy"] < 1, ""))


def _colours_of(frame: pd.DataFrame) -> dict[str, str]:
    """Return the colour of each attack of `breakers`, those that break most first; the last colours are shared."""
    lost = (1 - frame["accuracy"]).groupby(frame["by"]).sum().drop("", errors="ignore")
    attacks = lost.drop(_WRONG, errors="ignore").sort_values(ascending=False, kind="stable").index
    most = len(_COLOURS) - 2
    found = {str(name): _COLOURS[min(at, most)] for at, name in enumerate(attacks)}
    return found | ({_WRONG: _COLOURS[-1]} if _WRONG in lost else {})


def _lost(frame: pd.DataFrame, shares: pd.DataFrame, numbers: Mapping[str, int], edges: I64) -> F64:
    """Return the sums of wrong shares in each bin of images, by what breaks them, [colours, defenses, bins].

    Args:
        frame: rows of `breakers`; of several trainings the mean counts.
        shares: its defenses and images, in order.
        numbers: number of the colour of each attack.
        edges: first image of each bin.
    """
    key = ["defense", "image"]
    broken = frame.assign(lost=(1 - frame["accuracy"]) / frame.groupby(key)["accuracy"].transform("size"))
    lost = np.zeros((len(_COLOURS), *shares.shape))
    for number, of in broken[broken["by"] != ""].groupby(broken["by"].map(numbers)):
        table = of.pivot_table(index="defense", columns="image", values="lost", aggfunc="sum")
        lost[int(number)] = table.reindex(index=shares.index, columns=shares.columns).fillna(0)
    binned: F64 = np.add.reduceat(lost, edges, axis=2)
    return binned


@style()
def audit(audits: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the outcome of each check of an audit, a column for each defense, with a symbol and a shade.

    Args:
        audits: rows of `bench.load_audits` of one data set, norm and radius.
        ax: where to draw; None: on a new figure.

    Raises:
        UserError: no rows, or audits of several threats or data sets.
    """
    if audits[["dataset", "norm", "eps"]].drop_duplicates().shape[0] != 1:
        raise UserError("no audits, or audits of several threats; choose those of one")
    table = audits.drop_duplicates(["check", "defense"], keep="last").pivot(
        index="check", columns="defense", values="status"
    )
    checks, names = list(dict.fromkeys(audits["check"])), list(dict.fromkeys(audits["defense"]))
    table = table.reindex(index=checks, columns=names)
    axes = axes_of(ax, 34 + 4 * len(checks), 52 + 9 * len(names))
    kinds = list(_STATUS)
    codes = table.map(lambda status: kinds.index(status) if status in kinds else len(kinds)).to_numpy(int)
    colours = ListedColormap([*(colour for _, colour in _STATUS.values()), "#ffffff"])
    axes.imshow(codes, cmap=colours, vmin=-0.5, vmax=len(kinds) + 0.5, aspect="auto")
    for (y, x), code in np.ndenumerate(codes):
        symbol = _STATUS[kinds[code]][0] if code < len(kinds) else ""
        colour = "#a33c00" if symbol == "✗" else _DARK
        axes.text(x, y, symbol, ha="center", va="center", color=colour)
    rows(axes, checks)
    _columns(axes, names)
    figure = axes.get_figure()
    assert figure is not None
    figure.supxlabel("   ".join(f"{symbol} {status}" for status, (symbol, _) in _STATUS.items()), fontsize=7)
    return axes


def _columns(axes: Axes, names: Sequence[str]) -> None:
    """Label columns on top, upright enough not to meet."""
    axes.set_xticks(range(len(names)), [shortened(name, 24) for name in names], rotation=45, ha="left")
    axes.tick_params(axis="x", top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
