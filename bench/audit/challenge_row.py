"""Judge images against a row of a results folder, from Python."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from bench.audit.challenge import Challenge, challenge, keep
from bench.audit.challenged_row import Roots, challenged_row
from defenses.utils.errors import UserError


def challenge_row(
    results: str | Path,
    defense: str,
    images: Any,
    *,
    norm: str | None = None,
    eps: str | None = None,
    name: str | None = None,
    kept_for: tuple[str, str] | None = None,
    device: str = "cpu",
    code: Path | None = None,
    weights_root: Path | None = None,
    data_root: Path | None = None,
) -> Challenge:
    """Judge adversarial images that somebody made against a row of a results folder, under its own held-out draws.

    Args:
        results: the folder.
        defense: label of the row.
        images: of the board, float [B, C, H, W] in [0, 1] in its order, as an array or tensor; or their file, see
            `bench.attacks.precomputed_files.read_precomputed`, which may name them by an array index.
        norm: of the threat, if the row has several.
        eps: of the threat, as "1/5", if the row has several.
        name: of the images in tables; None: that of the file, or "x_adv".
        kept_for: author and address of the images, to add them to the results, whose worst case then counts them; None:
            nothing is written.
        device: where the defense runs.
        code: folder of user-defined defenses and parts; None: the current folder.
        weights_root: folder where weights are looked for first.
        data_root: folder of data sets.

    Returns:
        What the images do to the worst case: `before`, `after` (`value`, `low`, `high` in [0, 1]), `falls`, `changed`;
        `print` shows it in a line.

    Raises:
        UserError: an unknown row, images that are no numbers, of another shape or number, or outside the ball or the
            box, or a defense that cannot be rebuilt as it was.
    """
    if kept_for is not None and not (len(kept_for) == 2 and all(kept_for)):
        raise UserError("images are kept with their origin; give kept_for = (author, address)")
    row = challenged_row(Path(results), defense, norm, eps, device=device, roots=Roots(code, weights_root, data_root))
    with tempfile.TemporaryDirectory(prefix="purebench-") as scratch:
        given = Path(images) if isinstance(images, str | Path) else _written(images, Path(scratch))
        challenged = challenge(row, given, name)
    if kept_for is not None:
        keep(challenged, *kept_for)
    return challenged


def _written(images: Any, folder: Path) -> Path:
    """Write images to a file; return its path."""
    import numpy as np

    from defenses.data.arrays import as_array

    array = as_array(images)
    if array.dtype.kind not in "buf":
        raise UserError(f"the images are {str(images)[:40]!r}; give a tensor or NumPy array of numbers, or their file")
    path = folder / "x_adv.npy"
    np.save(path, array, allow_pickle=False)
    return path
