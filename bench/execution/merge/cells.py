"""Choose the result of each cell among several results folders, where all that have one must agree bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bench.store.arrays import merged
from bench.store.parts import CellRecord, Stored, stored
from defenses.utils.errors import UserError

_TIMES = ("seconds",)  # columns of a machine, not of the answer


def stored_whole(folder: Path) -> Stored:
    """Return the stored cells of a results folder.

    Raises:
        UserError: a part is damaged; it is named.
    """

    def refuse(part: Path, problem: str) -> None:
        raise UserError(f"{part}: {problem}; run the board again in {folder}, which redoes its cells")

    return stored(folder / "parts", refuse)


def chosen(folders: Sequence[Stored], started: Mapping[str, str]) -> tuple[Stored, list[CellRecord]]:
    """Return the result of every cell that a folder has, and the lines of the cells on which folders disagree.

    A finished cell stands before one that failed, one without failed images before one with some, then the earliest.

    Args:
        folders: stored cells of each.
        started: time at which each run began, by its id.
    """
    cells: Stored = {}
    pairs: dict[tuple[Path, Path], list[str]] = {}
    for key in dict.fromkeys(key for folder in folders for key in folder):
        found = sorted((folder[key] for folder in folders if key in folder), key=lambda at: _rank(at[0], started))
        cells[key] = found[0]
        for line, part in found[1:]:
            if _quality(line) == _quality(found[0][0]) and line["status"] == "ok":
                pairs.setdefault((found[0][1], part), []).append(key)
    differing = {key for (a, b), keys in pairs.items() for key in _differing(a, b, keys)}
    return cells, [line for key, (line, _) in cells.items() if key in differing]


def _quality(line: CellRecord) -> tuple[bool, bool]:
    """Return (False, False) of a finished cell without an error; it sorts before all others."""
    return line["status"] != "ok", bool(line["error"]) and line["status"] != "unsupported"


def _rank(line: CellRecord, started: Mapping[str, str]) -> tuple[object, ...]:
    """Return the key by which the results of a cell are sorted; it does not depend on the order of the folders."""
    run = str(line.get("run", ""))
    return *_quality(line), started.get(run, ""), run, str(sorted(line.items(), key=lambda item: item[0]))


def _differing(a: Path, b: Path, keys: list[str]) -> Iterator[str]:
    """Yield the cells whose records, draws or images are not the same bits in two parts."""
    (tables_a, images_a), (tables_b, images_b) = (merged(keys, dict.fromkeys(keys, part)) for part in (a, b))
    whole = all(same_table(tables_a[name], tables_b[name]) for name in tables_a)
    for key in keys:
        same = whole or all(
            same_table(_of_cell(tables_a[name], key), _of_cell(tables_b[name], key)) for name in tables_a
        )
        if not same or not _same_images(images_a[key], images_b[key]):
            yield key


def _of_cell(table: pa.Table, key: str) -> pa.Table:
    return table.filter(pc.equal(table["cell"].cast(pa.string()), key))


def _same_images(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def same_table(a: pa.Table, b: pa.Table) -> bool:
    """Return True if two Arrow tables have the same bits in their common columns, times excepted.

    A column of an older version may be missing, or stored in fewer bits: its values count.
    """
    names = [name for name in a.column_names if name in b.column_names and name not in _TIMES]
    return len(a) == len(b) and all(_same_column(a[name], b[name]) for name in names)


def _same_column(a: pa.ChunkedArray, b: pa.ChunkedArray) -> bool:
    one, other = _plain(a), _plain(b)
    if isinstance(one, pa.Array) or isinstance(other, pa.Array):
        return isinstance(one, pa.Array) and isinstance(other, pa.Array) and bool(one.equals(other))
    return one.dtype == other.dtype and one.tobytes() == other.tobytes()


def _plain(column: pa.ChunkedArray) -> pa.Array | np.ndarray:
    """Return texts as an Arrow array, numbers as NumPy's float64 or int64."""
    array = column.combine_chunks()
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    while pa.types.is_list(array.type) or pa.types.is_fixed_size_list(array.type):
        array = array.flatten()
    if pa.types.is_floating(array.type):
        return array.to_numpy(zero_copy_only=False).astype(np.float64)
    return array.cast(pa.int64()) if pa.types.is_integer(array.type) else array
