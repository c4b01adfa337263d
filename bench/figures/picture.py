"""A picture of results: its data, what it shows in words, and files of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.plots.style import as_file, file_bytes, of_width, save


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture, drawn when it is asked for.

    Args:
        name: kind of picture, as "ranks".
        slug: its name among the pictures of the same results, for files.
        alt: what it shows, in one sentence, for those who cannot see it.
        data: the rows that it is drawn from.
        numbers: what it shows, for those who cannot see it; empty where that is a table of its own.
        draw: returns its axes, on a new figure.
    """

    name: str
    slug: str
    alt: str
    data: pd.DataFrame
    numbers: pd.DataFrame
    draw: Callable[[], Axes]

    def figure(self, width: float | None = None) -> Figure:
        """Return the picture as a matplotlib figure.

        Args:
            width: in millimetres; None: that of the picture.
        """
        with of_width(width):
            figure = self.draw().get_figure()
        assert isinstance(figure, Figure)
        return figure

    def _final(self, width: float | None = None) -> Figure:
        with as_file():
            return self.figure(width)

    def bytes(self, form: str, width: float | None = None) -> bytes:
        """Return the picture as a file: "svg", "pdf" or "png"; the same bytes each time."""
        return file_bytes(self._final(width), form)

    @property
    def svg(self) -> str:
        """The picture as SVG."""
        return self.bytes("svg").decode()

    @property
    def outlines(self) -> str:
        """The picture as SVG with text as outlines, which needs no fonts."""
        return file_bytes(self._final(), "svg", outlines=True).decode()

    def save(self, path: str | Path, width: float | None = None) -> Path:
        """Write the picture as SVG, PDF or PNG, by the ending of its path.

        Args:
            path: of the file.
            width: in millimetres; None: that of the picture.

        Raises:
            UserError: another ending, or a folder that cannot be written to.
        """
        return save(self._final(width), path)

    def _repr_svg_(self) -> str:
        return self.svg
