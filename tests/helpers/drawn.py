"""What pictures hold: points of lines, and texts whose boxes overlap."""

import numpy as np
from matplotlib.figure import Figure


def points(ax) -> list[np.ndarray]:
    """The points of all lines with markers, [N, 2] each."""
    return [line.get_xydata() for line in ax.lines if line.get_marker() not in ("None", "|", "_", "")]


def texts_overlap(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts whose boxes overlap."""
    figure.draw_without_rendering()
    shown = [t for t in figure.findobj(lambda a: hasattr(a, "get_text")) if t.get_visible() and t.get_text().strip()]
    boxes = [(t.get_text(), t.get_window_extent()) for t in shown if t.get_window_extent().width > 1]
    boxes = [(text, box.padded(-1)) for text, box in boxes if figure.bbox.overlaps(box)]
    pairs = [(a, b) for i, a in enumerate(boxes) for b in boxes[i + 1 :]]
    return [(one, other) for (one, first), (other, second) in pairs if one != other and first.overlaps(second)]
