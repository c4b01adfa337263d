"""Pictures of margins: how far the outputs of a defense are from another class."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, MaxNLocator

from bench.analysis.public_names import public
from bench.analysis.records import CLEAN, Lookup
from bench.plots.style import COLOURS, INK, MUTED, axes_of, legend_above, percent, place, style
from defenses.utils.errors import UserError

_IMAGE = ["training_seed", "image"]
_ATTACK = ["attack", "view"]
_COLUMNS = ("from", "to", "clean", "worst")
_BINS = 24
_TAILS = (1, 99)  # percentiles of all margins, beyond which they count in the outermost bins
_HEIGHT = 62.0  # millimetres
_LARGE = 10_000  # margins from which on numbers are written as 10k
_LINES = {"clean": ("clean images", MUTED, "--"), "worst": ("worst case", COLOURS[1], "-")}


@style()
def margins(bins: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the histogram of the margins of a defense, on clean images and under the worst attack on each.

    Below 0 another class than the label wins. The outermost bins hold what lies beyond them.

    Args:
        bins: rows of `margin_bins`.
        ax: where to draw; None: on a new figure.

    Raises:
        UserError: no rows.
    """
    if bins.empty:
        raise UserError("no image has the margins of the clean and of the attacked one")
    axes = axes_of(ax, _HEIGHT)
    edges = [*bins["from"], bins["to"].iloc[-1]]
    axes.stairs(percent(bins["worst"]), edges, color=COLOURS[1], alpha=0.15, fill=True, linewidth=0)
    for name, (label, colour, dash) in _LINES.items():
        axes.stairs(percent(bins[name]), edges, color=colour, linestyle=dash, linewidth=1.3, label=label)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set(xlabel="margin of the label (logits)", ylabel="images (%)")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    if max(map(abs, edges)) >= _LARGE:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    legend_above(axes)
    if ax is None:
        place(axes, left=11.5)
    return axes


def margin_bins(records: pd.DataFrame, worst: pd.DataFrame) -> pd.DataFrame:
    """Return the histogram of the margins of one defense, on clean images and under the worst attack on each.

    A margin is the logit of the label minus the largest other one, its mean over the held-out draws of an image.

    Args:
        records: rows of `bench.load_results` of a defense under one threat.
        worst: its rows of `bench.worst_per_image`.

    Returns:
        A row per bin: `from`, `to`: float64, its ends, of which 0 is one where margins lie on both sides; `clean`,
        `worst`: float64 in [0, 1], share of the images, of each training, whose margin lies in it or, of the outermost
        bins, beyond it. No rows without margins.

    Raises:
        UserError: rows of several defenses or threats.
    """
    if len(worst[["defense", "norm", "eps", "targets"]].drop_duplicates()) > 1:
        raise UserError("the rows are of several defenses or threats; choose those of one")
    frame = public(records[[name for name in (*_IMAGE, "index", *_ATTACK, "margin") if name in records]])
    keys = pd.concat([frame[[*_IMAGE, *_ATTACK]], worst[[*_IMAGE, *_ATTACK]]], ignore_index=True)
    images = (pd.factorize(keys["training_seed"])[0].astype(np.int64) << 40) + keys["image"].to_numpy(np.int64)
    cells = keys.groupby(_ATTACK, sort=False).ngroup().to_numpy(np.int64) << 48
    margin, n = frame["margin"].to_numpy(float), len(frame)
    unattacked = (frame["attack"] == CLEAN).to_numpy()
    clean = Lookup(images[:n][unattacked]).values(images[n:], margin[unattacked])
    attacked = Lookup((cells + images)[:n]).values((cells + images)[n:], margin)
    known = np.isfinite(clean) & np.isfinite(attacked)
    pairs = pd.DataFrame({"clean": clean[known], "worst": attacked[known]})
    if pairs.empty:
        return pd.DataFrame(columns=list(_COLUMNS), dtype="float64")
    edges = _edges(*np.percentile(pairs, _TAILS))
    found = {n: np.histogram(pairs[n].clip(edges[0], edges[-1]), edges)[0] / len(pairs) for n in _LINES}
    return pd.DataFrame({"from": edges[:-1], "to": edges[1:], **found})


def _edges(low: float, high: float) -> np.ndarray:
    """Return the ends of equal bins from low to high, all of them multiples of their width."""
    width = (high - low) / _BINS or 1.0
    return width * np.arange(np.floor(low / width), max(np.ceil(high / width), np.floor(low / width) + 1) + 1)
