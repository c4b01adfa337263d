"""Compare stored cells bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bench.store.arrays import merged

_TIMES = ("seconds",)  # columns of a machine, not of the answer


def other_bits(a: Path, b: Path, keys: list[str]) -> Iterator[str]:
    """Yield the cells whose records, draws or images are not the same bits in two parts, times excepted.

    Args:
        a: folder of a part.
        b: folder of another one.
        keys: of cells that both hold.

    Raises:
        FileNotFoundError: a part has moved.
        UserError: a part lacks arrays of its cells.
    """
    (tables_a, images_a), (tables_b, images_b) = (merged(keys, dict.fromkeys(keys, part)) for part in (a, b))
    whole = all(_same_table(tables_a[name], tables_b[name]) for name in tables_a)
    for key in keys:
        same = whole or all(
            _same_table(_of_cell(tables_a[name], key), _of_cell(tables_b[name], key)) for name in tables_a
        )
        if not same or not _same_images(images_a[key].read(), images_b[key].read()):
            yield key


def _of_cell(table: pa.Table, key: str) -> pa.Table:
    return table.filter(pc.equal(table["cell"].cast(pa.string()), key))


def _same_images(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _same_table(a: pa.Table, b: pa.Table) -> bool:
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
