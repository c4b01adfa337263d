"""Pictures of images: clean, adversarial and their difference; a purification step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from bench.analysis.images import Images
from bench.evaluation.trajectory import Trajectory
from bench.plots.style import COLOURS, axes_of, style
from defenses.utils.arrays import F32
from defenses.utils.errors import UserError

_GAP = 2  # pixels between images
_MOST = 16  # images in a row
_STATES, _ASPECT = 12, 3.0  # of a trajectory: images, width by height of the curve


@style()
def adversarial_grid(
    images: Images, *, eps: float | None = None, count: int = 8, class_names: Sequence[str] = (), ax: Axes | None = None
) -> Axes:
    """Draw images in three rows: clean, adversarial, and their difference, where grey is no change.

    Args:
        images: of `bench.load_images`.
        eps: change of a pixel that is drawn black or white; None: the largest one.
        count: images, from the first; at most 16.
        class_names: names of the classes; without them their numbers.
        ax: where to draw; None: on a new figure.

    Raises:
        UserError: no image.
    """
    if not len(images) or not 1 <= count <= _MOST:
        raise UserError(f"{len(images)} images, of which {count} are asked for; 1 to {_MOST} can be drawn")
    clean, adversarial = images.clean[:count], images.adversarial[:count]
    change = adversarial - clean
    scale = float(np.abs(change).max()) if eps is None else float(eps)
    shown = np.clip(change / (2 * scale or 1) + 0.5, 0, 1)
    size = clean.shape[-1] + _GAP
    sheet = np.concatenate([_row(of) for of in (clean, adversarial, shown)], axis=0)
    axes = axes_of(ax, 36, 24 + 10 * len(clean))
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=1)
    axes.set_yticks([(i + 0.5) * (clean.shape[-2] + _GAP) for i in range(3)], ["clean", "adversarial", "difference"])
    texts = [_caption(images, i, class_names) for i in range(len(clean))]
    axes.set_xticks([(i + 0.5) * size for i in range(len(clean))], texts, fontsize=6)
    _bare(axes)
    return axes


@style()
def trajectory(path: Trajectory, *, ax: Axes | None = None) -> Axes:
    """Draw an image after each step of its purification and, below, its energy or the norm of its score.

    Args:
        path: of `bench.purification_trajectory`; of a long one, twelve states are drawn, evenly.
        ax: where to draw; None: on a new figure.
    """
    last = len(path.states) - 1
    chosen = np.unique(np.linspace(0, last, min(_STATES, last + 1)).round().astype(int))
    axes = axes_of(ax, 54 + 100 / len(chosen), 120)
    axes.plot(np.arange(last + 1), path.values, color=COLOURS[0], marker="o", markersize=2)
    margin = last / max(len(chosen) - 1, 1) / 2 or 1  # so that a point stands below its image
    axes.set(xlim=(-margin, last + margin), xlabel="step", ylabel=path.label)
    axes.set_xticks(chosen)
    axes.set_box_aspect(1 / _ASPECT)
    strip = axes.inset_axes((0, 1.05, 1, _ASPECT / len(chosen)))
    strip.imshow(_row(path.states[chosen]), cmap="gray", vmin=0, vmax=1)
    strip.set_yticks([])
    strip.set_xticks([])
    _bare(strip)
    return axes


def _row(images: F32, gap: int = _GAP) -> Any:
    """Return images [N, C, H, W] side by side, [H + gap, N (W + gap)] or with three channels, white between them."""
    padded = np.pad(images, ((0, 0), (0, 0), (gap // 2, gap - gap // 2), (gap // 2, gap - gap // 2)), constant_values=1)
    n, channels, height, width = padded.shape
    joined = padded.transpose(2, 0, 3, 1).reshape(height, n * width, channels)
    return joined[..., 0] if channels == 1 else joined[..., :3]


def _caption(images: Images, at: int, names: Sequence[str]) -> str:
    """Return the class of an image before and after, and the percentage of right draws."""
    label, found = int(images.labels[at]), int(images.predictions[at])
    before, after = (names[i] if 0 <= i < len(names) else str(i) for i in (label, found))
    share = images.shares[at]
    right = "" if np.isnan(share) else f"\n{100 * share:.0f} %"
    return f"{before} → {after if found >= 0 else 'none'}{right}"


def _bare(axes: Axes) -> None:
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
