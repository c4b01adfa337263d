"""Parquet tables and images of parts: make, write and merge them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open

from bench.store.columns import check_columns
from bench.store.parts import ADVERSARIAL, DRAWS, RECORDS, read_lines
from defenses.utils.errors import UserError

_SMALL = 64_000_000  # bytes of images that are read at once


def tables_of(records: dict[str, object], draws: dict[str, object]) -> dict[str, pa.Table]:
    """Return the columns of a cell as Arrow tables by file name; no table without records."""
    return {RECORDS: pa.table(records), DRAWS: pa.table(draws)} if records else {}


@dataclass(frozen=True)
class CellImages:
    """The adversarial images of a cell, which `read` returns, float32 of `shape`, [B, C, H, W]."""

    shape: tuple[int, ...]
    read: Callable[[], npt.NDArray[np.float32]]

    @classmethod
    def of(cls, array: npt.NDArray[np.float32]) -> CellImages:
        """Return images that are in memory."""
        return cls(array.shape, lambda: array)


def write_arrays(folder: Path, tables: dict[str, pa.Table], images: dict[str, CellImages]) -> None:
    """Write the files of a part.

    Args:
        folder: folder of the part.
        tables: Arrow tables by file name.
        images: by key of their cell; empty: no file.
    """
    for name, table in tables.items():
        floats = _float_columns(table.schema)
        others = [c for c in table.column_names if c not in floats and c != "logits"]
        # Logits hardly repeat, so a dictionary does not help; splitting them by bytes does.
        pq.write_table(table, folder / name, compression="zstd", use_dictionary=others, use_byte_stream_split=floats)
    if images:
        _write_images(folder / ADVERSARIAL, images)


def _write_images(path: Path, images: dict[str, CellImages]) -> None:
    """Write a file of safetensors, of whose images those of one cell are in memory at a time.

    https://github.com/huggingface/safetensors#format; its own `save_file` needs all at once, and raises no OSError on a
    full disk.
    """
    header, end = {}, 0
    for key in sorted(images):
        shape = images[key].shape
        begin, end = end, end + math.prod(shape) * 4
        header[key] = {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for key in header:
            file.write(np.ascontiguousarray(images[key].read(), "<f4").data)


def _float_columns(schema: pa.Schema) -> list[str]:
    """Return the Parquet paths of all columns of floats."""
    plain = [f.name for f in schema if pa.types.is_floating(f.type)]
    lists = [f"{f.name}.list.element" for f in schema if f.name == "logits"]
    return plain + lists


def merged(keys: list[str], holders: dict[str, Path]) -> tuple[dict[str, pa.Table], dict[str, CellImages]]:
    """Merge the records, draws and images of cells.

    Args:
        keys: keys of the cells, in their order in the merged part.
        holders: by key, the part that holds the cell.

    Returns:
        Arrow tables by file name, and images by key.

    Raises:
        FileNotFoundError: a part has moved.
        UserError: a part lacks arrays of its cells.
    """
    images = {part: _images(part) for part in set(holders.values())}
    tables = {}
    for file in (RECORDS, DRAWS):
        by_part = {part: _read_table(part / file) for part in images}
        rows = {part: _rows_by_cell(table) for part, table in by_part.items()}
        pieces = [by_part[holders[keys[0]]].slice(0, 0), *(p for k in keys for p in rows[holders[k]].get(k, ()))]
        # Parts of older versions may lack columns, and large logits are float32 where others are float16.
        tables[file] = pa.concat_tables(pieces, promote_options="permissive").combine_chunks()
    return tables, {k: images[holders[k]][k] for k in keys}


def read_images(part: Path, key: str) -> npt.NDArray[np.float32] | None:
    """Return the stored adversarial images of a cell, [N, C, H, W]; None if there are none.

    Args:
        part: folder of the part that holds the cell.
        key: of the cell.
    """
    if not (part / ADVERSARIAL).is_file():
        return None
    with safe_open(str(part / ADVERSARIAL), framework="np") as images:
        return images.get_tensor(key) if key in images.keys() else None  # noqa: SIM118


def _images(part: Path) -> dict[str, CellImages]:
    """Return the adversarial images of a part by key of their cell; of a large file they are read a cell at a time."""

    def read(key: str) -> npt.NDArray[np.float32]:
        with _reading(part), safe_open(str(part / ADVERSARIAL), framework="np") as images:
            array: npt.NDArray[np.float32] = images.get_tensor(key)
            return array

    with _reading(part), safe_open(str(part / ADVERSARIAL), framework="np") as images:
        keys = [line["key"] for line in read_lines(part)]
        # To open a merged part again for each of thousands of cells would take minutes.
        if len(keys) > 1 and (part / ADVERSARIAL).stat().st_size <= _SMALL:
            return {key: CellImages.of(images.get_tensor(key)) for key in keys}
        shapes = {key: tuple(images.get_slice(key).get_shape()) for key in keys}
    return {key: CellImages(shape, partial(read, key)) for key, shape in shapes.items()}


@contextmanager
def _reading(part: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, KeyError, OSError) as error:
        if not part.is_dir():
            raise
        text = f"{part / ADVERSARIAL} does not hold the images of its cells ({type(error).__name__})"
        raise UserError(f"{text}; remove {part.name}, and the next run does its cells again") from None


def _read_table(file: Path) -> pa.Table:
    table = pq.read_table(file)
    check_columns(table, file)
    return table


def _rows_by_cell(table: pa.Table) -> dict[str, list[object]]:
    """Return the rows of each cell, as pieces of the table with adjacent rows; a cell without rows is left out."""
    encoded = table["cell"].combine_chunks()
    encoded = encoded if hasattr(encoded, "dictionary") else encoded.dictionary_encode()
    keys, codes = encoded.dictionary.to_pylist(), encoded.indices.to_numpy(zero_copy_only=False)
    starts = np.flatnonzero(np.diff(codes, prepend=-1)).tolist()
    rows: dict[str, list[object]] = {}
    for begin, end in zip(starts, [*starts[1:], len(codes)], strict=False):
        rows.setdefault(keys[codes[begin]], []).append(table.slice(begin, end - begin))
    return rows
