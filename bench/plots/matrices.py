"""Pictures of matrices: images by defense, checks of audits by defense."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

from bench.analysis.public_names import public
from bench.plots.style import axes_of, rows, shortened, style
from defenses.utils.errors import UserError

_IMAGES, _DEFENSES = 500, 60  # most that are drawn one by one
_SETTING = ["dataset", "split", "indices", "norm", "eps", "targets"]
_DARK = "#10131a"  # on a pale cell, also on a dark screen
_STATUS = {  # symbol and shade of the outcome of a check
    "pass": ("✓", "#cfe8dd"),
    "fail": ("✗", "#f6d2bd"),
    "not measurable": ("?", "#f3e9c4"),
    "not applicable": ("–", "#e4e8ec"),
}


@style()
def matrix(worst: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the share of right draws of each image under the worst case of each defense.

    Images are sorted by difficulty and defenses by their mean; more than 500 images are binned, and of more than 60
    defenses the first are drawn.

    Args:
        worst: rows of `bench.worst_per_image` of one board and threat.
        ax: where to draw; None: on a new figure.

    Raises:
        UserError: no rows, or rows of several threats.
    """
    if worst[_SETTING].drop_duplicates().shape[0] != 1:
        raise UserError("there are no rows, or rows of several threats; choose those of one")
    shares = public(worst).pivot_table(index="defense", columns="image", values="accuracy", aggfunc="mean", sort=False)
    shares = shares.loc[shares.mean(axis=1).sort_values(ascending=False, kind="stable").index]
    shares = shares[shares.mean().sort_values(ascending=False, kind="stable").index]
    values, names = shares.to_numpy(float)[:_DEFENSES], [str(name) for name in shares.index[:_DEFENSES]]
    count = values.shape[1]
    if count > _IMAGES:
        edges = np.linspace(0, count, _IMAGES + 1).astype(int)[:-1]
        judged = np.add.reduceat(~np.isnan(values), edges, axis=1)  # images of a bin; the others have no verdict
        sums = np.add.reduceat(np.nan_to_num(values), edges, axis=1)
        values = np.divide(sums, judged, out=np.full(sums.shape, np.nan), where=judged > 0)
    axes = axes_of(ax, 26 + 3.6 * len(names), 120)
    shown = axes.imshow(values, aspect="auto", vmin=0, vmax=1, extent=(0, count, len(names) - 0.5, -0.5))
    rows(axes, names, 28)
    axes.grid(visible=False)
    axes.set_xlabel(f"{count} images, the easiest first")
    figure = axes.get_figure()
    assert figure is not None
    bar = figure.colorbar(shown, ax=axes, location="top", aspect=40, pad=0.02, ticks=[0, 0.5, 1])
    bar.set_label("right draws in the worst case (share)")
    return axes


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
