"""Galleries: the images of an attack that are shown, with what the defense takes them for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.site.evidence import Column, Evidence, ordered
from bench.site.sheets import Sheet, fitting, sheet_of
from bench.spec.cell import digest
from bench.store.arrays import read_images
from bench.store.parts import DRAWS, CellRecord
from bench.store.reader import Part
from defenses.utils.arrays import F32, I64

if TYPE_CHECKING:
    import pandas as pd

_CHANNELS = (1, 3)
_INDICES = 1 << 31  # more than any dataset index
Votes = tuple[int, int, int]
"""Class that most held-out draws give (-1: refused), number of these draws, number of all."""


@dataclass(frozen=True)
class Shown:
    """An image of a gallery.

    Args:
        at: position in the evidence.
        index: dataset index.
        label: right class.
        prediction: class that most held-out draws give the adversarial image; -1: refused.
        votes: number of these draws.
        draws: number of held-out draws.
        size: of the perturbation.
    """

    at: int
    index: int
    label: int
    prediction: int
    votes: int
    draws: int
    size: float


@dataclass(frozen=True, eq=False)
class Gallery:
    """Images of one attack.

    Args:
        name: of the file of the sheet, without folder: the key of a cell.
        sheet: the pictures; None: there are none.
        shown: the images of the sheet, in its order.
        asked: number of images that were to be shown.
        scale: difference that is shown black or white.
        absent: why there are no pictures, "" if there are.
    """

    name: str
    sheet: Sheet | None
    shown: tuple[Shown, ...]
    asked: int
    scale: float
    absent: str = ""


@dataclass(frozen=True, eq=False)
class _Stored:
    """Images and votes of one defense.

    Args:
        images: [C, H, W] in [0, 1], scaled down to fit, by position of the cell and dataset index.
        votes: by the same.
    """

    images: Mapping[tuple[int, int], F32]
    votes: Mapping[tuple[int, int], Votes]


def galleries(
    lines: Sequence[CellRecord],
    parts: Sequence[Part],
    records: pd.DataFrame,
    evidence: Iterable[tuple[Evidence, float]],
    count: int,
) -> dict[int, Gallery]:
    """Return the galleries of some matrices by the position of the first cell of each attack.

    Args:
        lines: cells of the results folder, see `bench.store.reader.read_folder`.
        parts: of the same.
        records: its records, see `bench.analysis.results.Results`.
        evidence: matrices, and the difference that is shown black or white, in (0, 1].
        count: most images of an attack; 0: no galleries.

    Raises:
        UserError: a damaged file.
    """
    if count < 1:
        return {}
    at = records["at"].to_numpy()
    index, bounds = records["index"].to_numpy(np.int64), np.searchsorted(at, np.arange(len(lines) + 1))
    found: dict[int, Gallery] = {}
    for matrix, scale in evidence:
        chosen = [list(islice(ordered(matrix, i), count)) for i in range(len(matrix.columns))]
        wanted: dict[int, set[int]] = {}
        for column, rows in zip(matrix.columns, chosen, strict=True):
            for cell in (*column.cells, *matrix.clean_cells):
                wanted.setdefault(cell, set()).update(matrix.index[rows].tolist())
        stored = _stored(parts, wanted, index, bounds)
        for column, rows in zip(matrix.columns, chosen, strict=True):
            if rows:
                name = file_name(str(lines[column.cells[0]]["key"]))
                found[column.cells[0]] = _gallery(matrix, column, rows, stored, name, scale)
    return found


def file_name(key: str) -> str:
    """Return the key of a cell as a name of a file, which its own keys are already."""
    return key if re.fullmatch(r"[0-9a-f]{8,64}", key) else digest(key)


def _stored(parts: Sequence[Part], wanted: Mapping[int, set[int]], index: I64, bounds: I64) -> _Stored:
    """Return images and votes of some dataset indices, by position of the cell."""
    images: dict[tuple[int, int], F32] = {}
    votes: dict[tuple[int, int], Votes] = {}
    for part in (part.only(frozenset(wanted)) for part in parts):
        for key, at in part.cells.items():
            array, of_cell = read_images(part.folder, key), index[bounds[at] : bounds[at + 1]]
            if array is None or len(array) != len(of_cell) or array.ndim != 4 or array.shape[1] not in _CHANNELS:
                continue
            rows = np.flatnonzero(np.isin(of_cell, list(wanted[at])))
            small = fitting(array[rows])
            images.update(zip(((at, int(i)) for i in of_cell[rows]), small, strict=True))
        if part.cells:
            votes.update(_votes(part, wanted))
    return _Stored(images, votes)


def _votes(part: Part, wanted: Mapping[int, set[int]]) -> dict[tuple[int, int], Votes]:
    """Return the votes on some dataset indices by position of the cell."""
    table = part.table(DRAWS, ("index", "held_out", "pred", "rejected"))
    names = ("at", "index", "held_out", "pred", "rejected")
    columns: dict[str, Any] = {name: table[name].to_numpy() for name in names}
    image = columns["at"].astype(np.int64) * _INDICES + columns["index"]
    asked = np.array([at * _INDICES + i for at in part.cells.values() for i in wanted[at]], np.int64)
    rows = np.flatnonzero(columns["held_out"].astype(bool) & np.isin(image, asked))
    pred = np.where(columns["rejected"][rows].astype(bool), -1, columns["pred"][rows].astype(np.int64))
    pairs, counts = np.unique(np.stack([image[rows], pred]), axis=1, return_counts=True)
    found: dict[tuple[int, int], Votes] = {}
    for code, prediction, n in zip(*pairs.tolist(), counts.tolist(), strict=True):
        key = (code // _INDICES, code % _INDICES)
        first = found.get(key, (0, 0, 0))
        most = (prediction, n) if n > first[1] else first[:2]
        found[key] = (*most, first[2] + n)
    return found


def _gallery(
    matrix: Evidence, column: Column, rows: Sequence[int], stored: _Stored, name: str, scale: float
) -> Gallery:
    indices = matrix.index[rows].tolist()
    attacked, clean = ({i: cell for cell in cells for i in indices if (cell, i) in stored.images}
                       for cells in (column.cells, matrix.clean_cells))  # fmt: skip
    kept = [(at, i) for at, i in zip(rows, indices, strict=True) if i in attacked]
    if not kept:
        return Gallery(name, None, (), len(rows), scale, "no images are stored of this attack")
    adversarial = [stored.images[attacked[i], i] for _, i in kept]
    known = all(i in clean for _, i in kept)
    sheet = sheet_of([stored.images[clean[i], i] for _, i in kept] if known else None, adversarial, scale)
    shown = [
        Shown(at, i, int(matrix.label[at]), *stored.votes.get((attacked[i], i), (-1, 0, 0)), float(column.sizes[at]))
        for at, i in kept[: sheet.count]
    ]
    return Gallery(name, sheet, tuple(shown), len(rows), scale)
