"""Plots as SVG: lines, bars or rows, with axes and labels."""

from __future__ import annotations

import math
from html import escape

from bench.audit.findings import Plot

_WIDTH, _HEIGHT = 360, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 42
_COLOURS = ("c0", "c1", "c2")  # CSS classes of the page
_INTERVAL = ("lower end", "measured", "upper end")
_TICKS = 4


def as_svg(plot: Plot, title: str = "") -> str:
    """Return a plot as SVG without script, font or link.

    Args:
        plot: its values; those that are not finite are left out.
        title: what it shows, for those who cannot see it.
    """
    draw = {"bar": _bars, "line": _lines, "rows": _rows}[plot.kind]
    top = max([1.0, *(v for _, values in plot.series.values() for v in values if math.isfinite(v))])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" font-family="sans-serif" font-size="11" role="img" '
        f'aria-label="{escape(_label(plot, title), quote=True)}">',
        *([] if plot.kind == "rows" else _scale(plot, top)),
        *_frame(plot),
        *draw(plot, top),
    ]
    if plot.limit is not None:
        across = f"M{_LEFT} {_y(plot.limit, top)}H{_WIDTH - _RIGHT}"
        parts.append(f'<path class="limit" d="{across}" stroke-dasharray="4"/>')
    return "".join([*parts, "</svg>"])


def _y(value: float, top: float) -> float:
    """Return the vertical position of a value; a negative value lies on the axis."""
    return round(_HEIGHT - _BOTTOM - max(0.0, value) / top * (_HEIGHT - _TOP - _BOTTOM), 1)


def _text(x: float, y: float, text: str, anchor: str = "middle", attributes: str = "") -> str:
    """Return a text element."""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" {attributes}>{escape(text)}</text>'


def _scale(plot: Plot, top: float) -> list[str]:
    """Return the numbers of the vertical axis, and its label."""
    middle = _TOP + (_HEIGHT - _TOP - _BOTTOM) / 2
    values = [top * i / _TICKS for i in range(_TICKS + 1)]
    parts = [_text(_LEFT - 6, _y(v, top) + 4, f"{v:.3g}", "end") for v in values]
    return [*parts, _text(10, middle, plot.y_label, "middle", f'transform="rotate(-90 10 {middle})"')]


def _frame(plot: Plot) -> list[str]:
    """Return the axes and the label of the horizontal one."""
    axes = f"M{_LEFT} {_TOP}V{_HEIGHT - _BOTTOM}H{_WIDTH - _RIGHT}"
    label = _text(_LEFT + (_WIDTH - _LEFT - _RIGHT) / 2, _HEIGHT - 6, plot.x_label)
    return [f'<path class="axis" d="{axes}"/>', label]


def _bars(plot: Plot, top: float) -> list[str]:
    """Return a vertical bar, its name and its value for every value."""
    parts = []
    for names, values in plot.series.values():
        if names == _INTERVAL:
            parts += _interval(values, top)
            continue
        slot = (_WIDTH - _LEFT - _RIGHT) / len(names)
        for i, (name, value) in enumerate(zip(names, values, strict=True)):
            x, y = round(_LEFT + slot * (i + 0.25), 1), _y(value, top)
            parts.append(
                f'<rect x="{x}" y="{y}" width="{round(slot / 2, 1)}" height="{round(_HEIGHT - _BOTTOM - y, 1)}" '
                f'class="{_COLOURS[0]}"/>'
            )
            middle = round(x + slot / 4, 1)
            parts += [_text(middle, _HEIGHT - _BOTTOM + 15, str(name)), _text(middle, y - 3, f"{value:.3g}")]
    return parts


def _interval(values: tuple[float, ...], top: float) -> list[str]:
    """Return a measured value as a point on the line from the lower to the upper end of its interval."""
    x = round(_LEFT + (_WIDTH - _LEFT - _RIGHT) / 2, 1)
    low, middle, high = (_y(v, top) for v in values)
    ends = "".join(f"M{x - 8} {y}H{x + 8}" for y in (low, high))
    text = f"{values[1]:.3g} [{values[0]:.3g}, {values[2]:.3g}]"
    return [
        f'<path class="{_COLOURS[0]}" d="M{x} {low}V{high}{ends}"/>',
        f'<circle class="{_COLOURS[0]}" cx="{x}" cy="{middle}" r="4"/>',
        _text(x + 14, min(middle + 4, _HEIGHT - _BOTTOM - 8), text, "start"),
    ]


def _label(plot: Plot, title: str) -> str:
    """Return title, axes and values of a plot as text."""
    axes = ", ".join(text for text in (plot.y_label, plot.x_label) if text)
    series = [
        f"{name}: " + ", ".join(f"{x}: {v:.3g}" for x, v in zip(names, values, strict=True))
        for name, (names, values) in plot.series.items()
    ]
    return "; ".join(text for text in (title, axes, *series) if text)


def _rows(plot: Plot, top: float) -> list[str]:
    """Return a name and a bar under it for every value; a value below 0 has no bar."""
    parts = []
    for names, values in plot.series.values():
        height, width = (_HEIGHT - _TOP - _BOTTOM) / len(names), _WIDTH - _LEFT - _RIGHT - 40
        for i, (name, value) in enumerate(zip(names, values, strict=True)):
            y, length = round(_TOP + height * i, 1), round(max(0.0, value) / top * width, 1)
            parts.append(_text(_LEFT + 4, round(y + 10, 1), str(name), "start"))
            parts.append(
                f'<rect x="{_LEFT}" y="{round(y + 14, 1)}" width="{length}" height="6" class="{_COLOURS[0]}"/>'
            )
            parts.append(_text(round(_LEFT + length + 4, 1), round(y + 21, 1), f"{value:.3g}", "start"))
    return parts


def _lines(plot: Plot, top: float) -> list[str]:
    """Return lines through points at equal horizontal distances, as radii and counts grow by factors."""
    parts = []
    for colour, (names, values) in zip(_COLOURS, plot.series.values(), strict=False):
        step = (_WIDTH - _LEFT - _RIGHT - 40) / max(1, len(names) - 1)
        points = [(round(_LEFT + 20 + step * i, 1), _y(v, top)) for i, v in enumerate(values) if math.isfinite(v)]
        parts.append(f'<polyline points="{" ".join(f"{x},{y}" for x, y in points)}" class="{colour}"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="3" class="{colour}"/>' for x, y in points]
        for i, name in enumerate(names):
            text = f"{name:.3g}" if isinstance(name, float) else str(name)
            parts.append(_text(round(_LEFT + 20 + step * i, 1), _HEIGHT - _BOTTOM + 15, text))
    return parts
