"""The style of all pictures: colours, shapes, sizes, and files that are the same bytes when they are written again."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullFormatter

from bench.plots.svg import compact, with_dark
from bench.store.folder import write_atomic
from defenses.utils.errors import UserError

FORMATS = ("svg", "pdf", "png")
WIDTH = 84.0  # of a column of a paper, millimetres
INK, MUTED, PAPER, SHADE = "#1b1f24", "#5b6470", "#ffffff", "#eef1f4"
# Okabe and Ito's colours that stand out from white and from black by 3 : 1, with a shape each.
COLOURS = ("#0072b2", "#d55e00", "#008f68", "#b5578b", "#7a6a00", "#5b6470")
MARKERS = ("o", "s", "^", "D", "v", "P")
_DARK = {INK: "#e7eaee", MUTED: "#a2abb6", PAPER: "#14171c", SHADE: "#232932", "#0072b2": "#4fa3dc"}
_RC: Any = {  # matplotlib types it by a literal of all names
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 8,
    "figure.constrained_layout.use": True,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "font.size": 8,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial"],
    "grid.color": SHADE,
    "grid.linewidth": 0.6,
    "image.cmap": "cividis",
    "image.interpolation": "nearest",
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "patch.linewidth": 0.6,
    "pdf.fonttype": 42,
    "savefig.dpi": 300,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "purebench",  # ids do not change from one time to the next
    "text.color": INK,
    "text.parse_math": False,  # a label may have dollar signs
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 7,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 7,
}

_asked: ContextVar[float | None] = ContextVar("width", default=None)  # of new figures, millimetres
_LABEL = 18.0  # points from the axes to the label below the numbers
_as_file: ContextVar[bool] = ContextVar("as file", default=False)  # nobody draws on new figures any more
_LEGEND_ROW = 3.9  # millimetres
_ROOM = 9.5  # characters of a label in half an inch


@contextmanager
def style() -> Iterator[None]:
    """Draw in the style of purebench's pictures; also a decorator, `@style()`."""
    with mpl.rc_context(_RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # of other scripts; an SVG keeps them as text
        yield


@contextmanager
def as_file() -> Iterator[None]:
    """Make new figures for files alone, on which nothing is drawn any more: their axes are placed for good."""
    token = _as_file.set(True)
    try:
        yield
    finally:
        _as_file.reset(token)


@contextmanager
def of_width(width: float | None) -> Iterator[None]:
    """Make new figures of some width in millimetres; None: of their own."""
    token = _asked.set(width)
    try:
        yield
    finally:
        _asked.reset(token)


def axes_of(ax: Axes | None, height: float, width: float = WIDTH) -> Axes:
    """Return axes to draw on.

    Args:
        ax: those of the caller; None: of a new figure.
        height: of a new figure, millimetres.
        width: likewise.
    """
    if ax is not None:
        return ax
    width = _asked.get() or width
    figure = Figure(figsize=(width / 25.4, height / 25.4), layout="constrained")
    axes: Axes = figure.add_subplot()
    return axes


def place(ax: Axes, *, left: float, legend: int = 1) -> None:
    """Place the axes of a new figure for a file by the known lengths of their texts; a layout takes two drawings.

    Args:
        ax: the only axes, with a label below them, and on their left if they have one.
        left: room for the texts on their left, millimetres.
        legend: rows of the legend above them.
    """
    figure = ax.get_figure(root=True)
    if figure is None or not _as_file.get():
        return
    width, height = (25.4 * side for side in figure.get_size_inches())
    right, bottom, top = 3.0, 10.5, 4.1 + _LEGEND_ROW * legend
    figure.set_layout_engine("none")
    ax.set_position((left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height))
    # Where matplotlib puts labels itself, it measures the numbers along both axes for it.
    ax.xaxis.set_label_coords(0.5, -_LABEL * 25.4 / 72 / (height - bottom - top))
    if not ax.get_ylabel():
        ax.yaxis.set_label_coords(0.0, 0.5)


def keep_places(figure: Figure) -> None:
    """Keep the axes of a new figure for a file where they are, as something was placed by them."""
    if _as_file.get():
        figure.set_layout_engine("none")


def percent(values: Any) -> Any:
    """Return shares in [0, 1] as percent."""
    return 100 * np.asarray(values, float)


def intervals(ax: Axes, x: Any, y: Any, ends: Any, *, upright: bool = False, **options: Any) -> None:
    """Draw points with their intervals.

    Args:
        ax: the axes.
        x: coordinates [N].
        y: likewise.
        ends: low and high ends of the intervals [2, N], along x; NaN where there is none.
        upright: the intervals lie along y.
        **options: of `Axes.errorbar`.
    """
    at = np.asarray(y if upright else x, float)
    low, high = (np.asarray(end, float) for end in ends)
    errors = np.nan_to_num(np.clip(np.stack([at - low, high - at]), 0, None))
    along = {"yerr" if upright else "xerr": errors}
    drawn: dict[str, Any] = {"fmt": "o", "elinewidth": 0.9, "capsize": 1.8, "capthick": 0.9, **along, **options}
    ax.errorbar(x, y, **drawn)


def rows(ax: Axes, names: Sequence[str], length: int = 34, ends: Sequence[str] = ()) -> None:
    """Label the y axis with a row for each name, the first on top.

    Args:
        ax: the axes.
        names: of the rows.
        length: most characters of a label; fewer where the figure is narrow.
        ends: texts after the names, which are not shortened.
    """
    figure = ax.get_figure(root=True)
    room = min(length, int(_ROOM * figure.get_figwidth())) if figure else length  # half of the width at most
    after = [f" · {end}" for end in ends] or [""] * len(names)
    labels = [shortened(name, max(room - len(end), 8)) + end for name, end in zip(names, after, strict=True)]
    ax.set_yticks(range(len(names)), labels)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")


def legend_above(ax: Axes, columns: int = 3) -> None:
    """Write the legend above the axes; in a figure of these axes alone, in its middle."""
    figure: Any = ax.get_figure()
    options: dict[str, Any] = {"ncols": columns, "handletextpad": 0.2, "columnspacing": 1, "handlelength": 1.4}
    if len(figure.axes) == 1:
        figure.legend(loc="outside upper center", **options)
    else:
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.02), **options)


def log_axis(ax: Axes) -> None:
    """Make the x axis logarithmic, its numbers as 10, 1k, 1M."""
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.xaxis.set_minor_formatter(NullFormatter())


def shortened(text: str, length: int = 34) -> str:
    """Return a text of at most some characters, on one line."""
    line = " ".join(str(text).split())
    return line if len(line) <= length else line[: length - 1] + "…"


def file_bytes(figure: Figure, form: str, *, outlines: bool = False) -> bytes:
    """Return a figure as a file, the same bytes each time.

    Args:
        figure: the figure.
        form: one of `FORMATS`.
        outlines: of an SVG, draws text as outlines for a print, which needs no fonts.
    """
    left_out = {"svg": ("Date", "Creator", "Format", "Type"), "pdf": ("CreationDate",), "png": ("Software",)}[form]
    buffer = io.BytesIO()
    with style(), mpl.rc_context({"svg.fonttype": "path" if outlines else "none"}):
        if form == "svg":  # as savefig, which draws it once more
            figure.set_dpi(mpl.rcParams["savefig.dpi"])
            canvas: Any = FigureCanvasSVG(figure)
            canvas.print_svg(buffer, metadata=dict.fromkeys(left_out))
        else:
            figure.savefig(buffer, format=form, metadata=dict.fromkeys(left_out))
    if form != "svg":
        return buffer.getvalue()
    svg = compact(buffer.getvalue().decode())
    return (svg if outlines else with_dark(svg, _DARK)).encode()


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as SVG, PDF or PNG, by the ending of its path; the file is whole or not there.

    Args:
        figure: the figure.
        path: of the file, ending in .svg, .pdf or .png; its folder must exist.

    Returns:
        The path.

    Raises:
        UserError: another ending, or a folder that cannot be written to.
    """
    file = Path(path)
    form = file.suffix[1:].lower()
    if form not in FORMATS:
        raise UserError(f"{file} is of no known kind of picture; end its name in .svg, .pdf or .png")
    write_atomic(file, file_bytes(figure, form))
    return file
