"""Bounds of the tables of a submission, told before any of them is read as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.spec.submission import MOST_DECODED, MOST_DRAWS, MOST_IMAGES, MOST_ROWS
from bench.store.columns import column_kind, known_columns
from bench.store.parts import DRAWS, RECORDS, CellRecord, part_folders
from bench.submissions.cells import cell_name

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_BATCH = 8192  # rows whose texts are measured at a time


def table_problems(results: Path, lines: Iterable[CellRecord]) -> Iterator[str]:
    """Yield why the tables of a results folder are not read: cells or tables that are too large, unknown columns.

    Args:
        results: the folder.
        lines: of its cells, whose keys are right.
    """
    lines = list(lines)
    if problems := [*_cell_problems(lines)]:
        yield from problems
        return
    images = sum(line["images"] for line in lines)
    draws = sum(line["images"] * (line["draws"] + line["selection"]) for line in lines)
    parts = part_folders(results / "parts")
    size = 0
    for name, most in ((RECORDS, images), (DRAWS, draws)):
        files = [part / name for part in parts if (part / name).is_file()]
        if problem := next((found for file in files if (found := _column_problem(file))), ""):
            yield problem
            return
        extents = [_extent(file) for file in files]
        rows, size = sum(rows for rows, _ in extents), size + sum(decoded for _, decoded in extents)
        if rows > most:
            yield f"{name} has {rows:,} rows; the cells have {most:,}"
            return
        if rows > MOST_ROWS:
            yield f"{name} has {rows:,} rows; at most {MOST_ROWS:,} are allowed"
            return
    for file in (part / name for part in parts for name in (RECORDS, DRAWS) if (part / name).is_file()):
        if size <= MOST_DECODED:
            size += _text_size(file, MOST_DECODED - size)
    if size > MOST_DECODED:
        yield f"its tables need more than the {MOST_DECODED:,} bytes of memory that are allowed"


def _cell_problems(lines: Iterable[CellRecord]) -> Iterator[str]:
    for line in lines:
        images, draws = line["images"], line["draws"] + line["selection"]
        if not 0 <= images <= MOST_IMAGES:
            yield f"{cell_name(line)}: {images:,} images; at most {MOST_IMAGES:,} are allowed"
        elif not 0 <= draws <= MOST_DRAWS:
            yield f"{cell_name(line)}: {draws:,} draws of an image; at most {MOST_DRAWS:,} are allowed"


def _column_problem(file: Path) -> str:
    """Return the column that no run writes into a table; "" without one."""
    import pyarrow.parquet as pq

    schema, known = pq.read_schema(file), known_columns(file.name)
    for at, name in enumerate(schema.names):
        if name not in known:
            return f'{file.name} has a column "{name}", which no run writes'
        if name in schema.names[:at]:
            return f'{file.name} has the column "{name}" twice'
        if column_kind(schema.types[at]) != known[name]:
            return f'{file.name}: the column "{name}" is {schema.types[at]}, not a {known[name]}'
    return ""


def _extent(file: Path) -> tuple[int, int]:
    """Return the rows of a table, and its bytes in memory without texts, as its metadata give them."""
    import pyarrow.parquet as pq

    metadata, schema = pq.read_metadata(file), pq.read_schema(file)
    rows = size = 0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        columns = [group.column(at) for at in range(group.num_columns)]
        flat = [column.num_values for column in columns if "." not in column.path_in_schema]
        rows += max(group.num_rows, *flat)
        size += sum(_column_size(column, schema) for column in columns)
    return max(rows, metadata.num_rows), size


def _column_size(column: pq.ColumnChunkMetaData, schema: pa.Schema) -> int:
    """Return the bytes of a column; of texts those of their distinct values and codes."""
    kind = schema.field(column.path_in_schema.partition(".")[0]).type
    if column_kind(kind) == "text":
        return int(column.total_uncompressed_size + 4 * column.num_values)
    kind = kind.value_type if column_kind(kind) == "list" else kind
    return int(column.num_values * max(1, kind.bit_width // 8))


def _text_size(file: Path, most: int) -> int:
    """Return the bytes that the texts of a table have where each row has its own; the count ends beyond `most`."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    texts = [name for name, kind in known_columns(file.name).items() if kind == "text"]
    size = 0
    with pq.ParquetFile(file, read_dictionary=texts) as table:
        for batch in table.iter_batches(_BATCH, columns=texts):
            for column in batch.columns:
                lengths = pc.fill_null(pc.binary_length(column.dictionary), 0).to_numpy(zero_copy_only=False)
                codes = column.indices.drop_null().to_numpy(zero_copy_only=False)
                size += int(lengths.astype(np.int64)[codes].sum())
            if size > most:
                break
    return size
