"""Names of points, placed where they cover no other name, no point and no line; numbers where a name finds no place.

Places are tried in a fixed order and taken only if they are free, so that a picture is the same bytes each time and a
test can hold that nothing overlaps. Libraries that push names apart (as adjustText) promise neither.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from bench.plots.style import MUTED, keep_places, shortened
from defenses.utils.arrays import F64, I64, Bools

_SIZE = 6  # points, of the text
_LENGTH = 20  # characters of a name
_NEAR = (5.0, 7.0)  # distances from a point without a leader, in points
_FAR = (12.0, 18.0, 26.0, 36.0, 48.0, 62.0)  # with one
_NAMES_TO = 36.0  # farthest distance of a name; numbers may stand farther away
_CROSSING = 6.0  # points of distance that a leader goes to cross one line less
_CROSSED = 4  # most lines that a leader crosses
_DIRECTIONS = np.array([[np.cos(a), np.sin(a)] for a in np.arange(16) * np.pi / 8]).round(6)
_CHARACTER = 3.5  # points, mean width
_NAME, _NUMBER, _NOTHING = range(3)


def name_points(ax: Axes, x: Any, y: Any, names: Sequence[str]) -> list[str]:
    """Write names beside points, numbers where a name finds no place, and below the axes what the numbers mean.

    Args:
        ax: the axes, of their final size and limits; a figure of these axes alone grows by the lines below them.
        x: coordinates [N].
        y: likewise.
        names: of the points, the most important first.

    Returns:
        The names that have neither a place nor a number; they stand below the axes too.
    """
    figure: Any = ax.get_figure()
    height = figure.get_figheight()
    values = np.column_stack([np.asarray(x, float), np.asarray(y, float)])
    tries = dict.fromkeys(
        np.flatnonzero(np.isfinite(values).all(axis=1)).tolist(), _NAME
    )  # what is tried next for each point
    while True:
        numbers = {i: str(n) for n, i in enumerate((i for i, tried in tries.items() if tried == _NUMBER), 1)}
        without = [names[i] for i, tried in tries.items() if tried == _NOTHING]
        note = _note(ax, [f"{n} {shortened(names[i], _LENGTH)}" for i, n in numbers.items()], without, height)
        _lay_out(figure)
        room = _Room.of(ax)
        texts = {i: numbers.get(i, shortened(names[i], _LENGTH)) for i, tried in tries.items() if tried != _NOTHING}
        drawn = {i: room.place(ax, values[i], text, far=i in numbers) for i, text in texts.items()}
        if all(drawn.values()):
            keep_places(figure)
            return without
        for artist in [*note, *(artist for artists in drawn.values() for artist in artists)]:
            artist.remove()
        tries |= {i: tries[i] + 1 for i, artists in drawn.items() if not artists}


def _lay_out(figure: Any) -> None:
    """Give the axes of a figure their places, as a drawing does."""
    for axes in figure.axes:
        axes.get_xlim(), axes.get_ylim()  # limits that follow the data are found when asked for
    if (engine := figure.get_layout_engine()) is not None:
        engine.execute(figure)


@dataclass
class _Room:
    """Keep what is taken on axes, in pixels.

    Args:
        inside: the axes, [x0, y0, x1, y1].
        point: pixels of a point, the unit of lengths in print.
        lines: segments [S, 4] of lines and intervals.
        markers: boxes [M, 4].
        texts: boxes [T, 4] of names.
        leaders: segments [L, 4].
    """

    inside: F64
    point: float
    lines: F64
    markers: F64
    texts: F64 = field(default_factory=lambda: np.zeros((0, 4)))
    leaders: F64 = field(default_factory=lambda: np.zeros((0, 4)))

    @classmethod
    def of(cls, ax: Axes) -> _Room:
        """Return what lines, markers and intervals take."""
        figure: Any = ax.get_figure(root=True)
        point = figure.dpi / 72
        segments, boxes = [np.zeros((0, 4))], [np.zeros((0, 4))]
        for line in ax.lines:
            at = np.asarray(line.get_transform().transform(line.get_xydata()), float).reshape(-1, 2)
            if line.get_linestyle() not in ("None", "", " "):
                segments.append(np.hstack([at[:-1], at[1:]]))
            if line.get_marker() not in ("None", "", " ", None):
                half = line.get_markersize() / 2 * point
                boxes.append(np.hstack([at - half, at + half]))
        for collection in ax.collections:
            if isinstance(collection, LineCollection):
                transform = collection.get_transform()
                paths = [transform.transform(path).reshape(-1, 2) for path in collection.get_segments()]
                segments += [np.hstack([path[:-1], path[1:]]) for path in paths]
        lines, markers = (np.concatenate(found) for found in (segments, boxes))
        finite = (array[np.isfinite(array).all(axis=1)] for array in (lines, markers))
        return cls(np.array(ax.get_window_extent().extents), point, *finite)

    def place(self, ax: Axes, value: F64, text: str, *, far: bool) -> list[Any]:
        """Write a text at the best free place about a point; return what was drawn, [] where no place is free.

        Args:
            ax: the axes.
            value: the point, in data.
            text: its name or number.
            far: the text may stand far away.
        """
        point: tuple[float, float] = tuple(value)
        label = ax.annotate(text, point, (0, 0), textcoords="offset points", ha="center", va="center", fontsize=_SIZE)
        at, size = ax.transData.transform(value), np.array(label.get_window_extent().size) + 1.5 * self.point
        distances = np.array([d for d in (*_NEAR, *_FAR) if far or d <= _NAMES_TO])
        offsets = (distances[:, None, None] * self.point * _DIRECTIONS).reshape(-1, 2)
        offsets += np.tile(np.sign(_DIRECTIONS) * size / 2, (len(distances), 1))
        boxes = np.hstack([at + offsets - size / 2, at + offsets + size / 2])
        ends = np.clip(at, boxes[:, :2], boxes[:, 2:])
        leaders = np.hstack([np.broadcast_to(at, ends.shape), ends])
        near, crossed = np.repeat(np.isin(distances, _NEAR), len(_DIRECTIONS)), _meet(leaders, self.lines).sum(1)
        free = self._free(boxes) & np.where(near, self._nearest(at, boxes), self._clear(at, leaders, crossed))
        if not free.any():
            label.remove()
            return []
        cost = np.repeat(distances, len(_DIRECTIONS)) + np.where(near, 0, _CROSSING * crossed)
        best = int(np.argmin(np.where(free, cost, np.inf)))
        label.set_position(tuple(offsets[best] / self.point))
        self.texts = np.vstack([self.texts, boxes[best]])
        if near[best]:
            return [label]
        self.leaders = np.vstack([self.leaders, leaders[best]])
        thin = {"arrowstyle": "-", "linewidth": 0.4, "color": MUTED, "shrinkA": 0, "shrinkB": 0}
        end: tuple[float, float] = tuple((ends[best] - at) / self.point)
        return [label, ax.annotate("", point, end, textcoords="offset points", arrowprops=thin)]

    def _free(self, boxes: F64) -> Bools:
        """Return which boxes lie inside and touch nothing."""
        inside = np.all((boxes[:, :2] >= self.inside[:2]) & (boxes[:, 2:] <= self.inside[2:]), axis=1)
        taken = np.concatenate([self.markers, self.texts])
        apart = (boxes[:, None, :2] >= taken[None, :, 2:]) | (boxes[:, None, 2:] <= taken[None, :, :2])
        crossed = _cross(boxes, np.concatenate([self.lines, self.leaders]))
        free: Bools = inside & np.all(np.any(apart, axis=2), axis=1) & ~np.any(crossed, axis=1)
        return free

    def _nearest(self, at: F64, boxes: F64) -> Bools:
        """Return for which boxes no marker lies nearer than that at a point."""
        middle = (self.markers[:, :2] + self.markers[:, 2:]) / 2
        own, others = _distance(at[None], boxes), _distance(middle, boxes)
        nearest: Bools = np.all(others >= own - 1e-6, axis=1)
        return nearest

    def _clear(self, at: F64, leaders: F64, crossed: I64) -> Bools:
        """Return which leaders meet few lines, no text, no other leader, and no marker but those about their point."""
        apart = np.any((self.markers[:, :2] > at) | (self.markers[:, 2:] < at), axis=1)
        blocked = np.any(_cross(np.concatenate([self.markers[apart], self.texts]), leaders), axis=0)
        slanted = np.all(np.abs(leaders[:, :2] - leaders[:, 2:]) > 1e-6, axis=1)  # others would hide an interval
        clear: Bools = ~blocked & slanted & (crossed <= _CROSSED) & ~np.any(_meet(leaders, self.leaders), axis=1)
        return clear


def _distance(points: F64, boxes: F64) -> F64:
    """Return distances [boxes, points]."""
    gap = np.maximum(boxes[:, None, :2] - points, points - boxes[:, None, 2:])
    distance: F64 = np.linalg.norm(np.clip(gap, 0, None), axis=2)
    return distance


def _cross(boxes: F64, segments: F64) -> Bools:
    """Return which boxes have a part of which segments inside, [boxes, segments], by Liang and Barsky's clipping."""
    start, along = segments[:, :2], segments[:, 2:] - segments[:, :2]
    safe = np.where(along == 0, 1e-12, along)
    first, second = (boxes[:, None, :2] - start) / safe, (boxes[:, None, 2:] - start) / safe
    enter = np.minimum(first, second).max(2)
    leave = np.maximum(first, second).min(2)
    cross: Bools = np.maximum(enter, 0) < np.minimum(leave, 1)
    return cross


def _meet(one: F64, other: F64) -> Bools:
    """Return which segments of one meet which of the other, [one, other]."""

    def side(of: F64, point: F64) -> F64:
        way = of[..., 2:] - of[..., :2]
        at = point - of[..., :2]
        return np.sign(way[..., 0] * at[..., 1] - way[..., 1] * at[..., 0])

    a, b = one[:, None], other[None]
    apart = side(a, b[..., :2]) * side(a, b[..., 2:]), side(b, a[..., :2]) * side(b, a[..., 2:])
    meet: Bools = (apart[0] < 0) & (apart[1] < 0)
    return meet


def _note(ax: Axes, numbered: Sequence[str], without: Sequence[str], height: float) -> list[Any]:
    """Explain numbers below the axes, and let a figure of these axes alone grow by as much.

    Args:
        ax: the axes.
        numbered: numbers with their names.
        without: names of points without a number.
        height: of the figure before it grows, inches.

    Returns:
        What was drawn.
    """
    figure: Any = ax.get_figure(root=True)
    width = int(ax.get_window_extent().width / figure.dpi * 72 / _CHARACTER)
    shown = [shortened(name, _LENGTH) for name in without]
    lines = []
    for start, entries in (("", numbered), ("not named: ", shown)):
        text = start + ", ".join(entry.replace(" ", "\u00a0") for entry in entries)
        lines += textwrap.wrap(text, max(width, _LENGTH), break_on_hyphens=False) if entries else []
    if not lines:
        return []
    if len(figure.axes) == 1:
        figure.set_figheight(height + (_SIZE * 1.3 * len(lines) + 4) / 72)
    return [ax.annotate("\n".join(lines), (0, 0), (0, -30), xycoords="axes fraction", textcoords="offset points",
                        va="top", fontsize=_SIZE, linespacing=1.25)]  # fmt: skip
