"""The cells of a submission as frames and arrays, and the clean images that they are held against."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from bench.spec.cell import NULLS
from bench.store.arrays import read_images
from bench.store.parts import DRAWS, RECORDS, CellRecord
from bench.store.reader import Part, read_folder
from defenses.data.dataset import NAMES, load_dataset
from defenses.utils.errors import UserError

Images = npt.NDArray[np.float32]
_CLEAN = NULLS[0]
_COLUMNS = {  # that checks need
    RECORDS: (
        *("index", "label", "sha", "status", "beyond"),
        *("correct", "draws", "correct_sel", "draws_sel", "rejected"),
    ),
    DRAWS: ("index", "draw", "held_out", "rejected", "pred"),
}


@dataclass(frozen=True)
class CellData:
    """A finished cell.

    Args:
        line: its line, with the labels of the plan.
        records: a row an image.
        draws: a row an image and draw.
        images: adversarial images, float32 [B, C, H, W]; None: none are stored.
    """

    line: CellRecord
    records: pd.DataFrame
    draws: pd.DataFrame
    images: Images | None

    @property
    def name(self) -> str:
        """Return its name in messages."""
        return cell_name(self.line)


def cell_name(line: CellRecord) -> str:
    """Return attack, view and first image of a cell as text."""
    return f"{line['attack']} | {line['view']} | images from {line['block']}"


def cells_of(results: Path, *, attack: str | None = None) -> list[CellData]:
    """Return the finished cells of a results folder, in the order of its plan.

    Args:
        results: the folder.
        attack: the label of the only attack that is read; None: all.

    Raises:
        UserError: a file cannot be read.
    """

    def read(lines: list[CellRecord], parts: list[Part]) -> list[CellData]:
        wanted = frozenset(i for i, line in enumerate(lines) if attack in (None, line["attack"]))
        found: dict[int, CellData] = {}
        for part in (part.only(wanted) for part in parts):
            records, draws = (_by_cell(part.table(name, columns)) for name, columns in _COLUMNS.items())
            for key, at in part.cells.items():
                empty = pd.DataFrame()
                images = read_images(part.folder, key)
                found[at] = CellData(lines[at], records.get(at, empty), draws.get(at, empty), images)
        return [found[at] for at in sorted(found)]

    try:
        return read_folder(results, read)
    except (ValueError, OSError) as error:
        raise UserError(f"the arrays cannot be read ({type(error).__name__})") from None


def _by_cell(table: Any) -> dict[int, pd.DataFrame]:
    if table is None:
        return {}
    return {int(at): rows.reset_index(drop=True) for at, rows in table.to_pandas().groupby("at", sort=False)}


@dataclass(frozen=True)
class CleanImages:
    """Clean images by their number in the split.

    Args:
        x: images, float32 [C, H, W] each.
        y: labels.
        sha: first 16 digits of their SHA-256.
        revision: of the data set.
    """

    x: Mapping[int, Images]
    y: Mapping[int, int]
    sha: Mapping[int, str]
    revision: str


def clean_images(lines: Iterable[CellRecord], board: Path | None, data_root: Path | None = None) -> CleanImages:
    """Return the clean images of some cells: of the board where one is given, else of a published data set.

    Args:
        lines: of cells, at least one.
        board: a results folder with the same images; None: there is none.
        data_root: folder of data sets.

    Raises:
        UserError: no board, and the data set is none of purebench or its files are not there.
    """
    first = next(iter(lines))
    if board is not None:
        return _of_board(board)
    name = first["dataset"]
    if name not in NAMES:  # others may be code, files, or downloads
        raise UserError(f"{name} is no data set of purebench; name the board's folder with --to, which has the images")
    data = load_dataset(name, first["split"], root=data_root)
    shas = {i: sha[:16] for i, sha in enumerate(data.shas)}
    return CleanImages(dict(enumerate(data.x.numpy())), dict(enumerate(data.y.tolist())), shas, data.revision)


def _of_board(board: Path) -> CleanImages:
    """Return the images of the cells without an attack."""
    x: dict[int, Images] = {}
    y: dict[int, int] = {}
    sha: dict[int, str] = {}
    revision = ""
    for cell in cells_of(board, attack=_CLEAN):
        revision = str(cell.line["identity"]["data"][2])
        rows = cell.records[["index", "label", "sha"]].itertuples(index=False, name=None)
        for (index, label, digest), image in zip(rows, cell.images if cell.images is not None else (), strict=False):
            x[int(index)], y[int(index)], sha[int(index)] = image, int(label), str(digest)
    if not x:
        raise UserError(f"{board} has no finished cell of clean images; run the board first")
    return CleanImages(x, y, sha, revision)
