"""Several parts of a results folder as one: their tables and images, cell by cell in a given order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.store.columns import check_columns
from bench.store.parts import ADVERSARIAL, DRAWS, RECORDS, read_lines
from defenses.utils.errors import UserError


def merged(keys: list[str], where: dict[str, Path]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The records, draws and images of cells.

    Args:
        keys: of the cells, in the order that they get.
        where: by key, the part that holds the cell.

    Returns:
        Arrow tables by the name of their file, and images by key.

    Raises:
        FileNotFoundError: a part has moved.
        UserError: a part does not hold what its lines say.
    """
    import pyarrow as pa

    images = {part: _images(part) for part in set(where.values())}
    tables = {}
    for file in (RECORDS, DRAWS):
        whole = {part: _checked(part / file) for part in images}
        rows = {part: _by_cell(table) for part, table in whole.items()}
        pieces = [whole[where[keys[0]]].slice(0, 0), *(p for k in keys for p in rows[where[k]].get(k, ()))]
        # Parts of older versions may lack columns, and large logits are float32 where others are float16.
        tables[file] = pa.concat_tables(pieces, promote_options="permissive").combine_chunks()
    return tables, {k: images[where[k]][k] for k in keys}


def _images(part: Path) -> dict[str, Any]:
    """The adversarial images of a part, by cell."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        found = load_file(str(part / ADVERSARIAL))
        return {line["key"]: found[line["key"]] for line in read_lines(part)}
    except (SafetensorError, KeyError, OSError) as error:
        if not part.is_dir():
            raise
        text = f"{part / ADVERSARIAL} does not hold the images of its cells ({type(error).__name__})"
        raise UserError(f"{text}; remove {part.name}, and the next run does its cells again") from None


def _checked(file: Path) -> Any:
    """A table to be merged with others: of their kinds of columns."""
    import pyarrow.parquet as pq

    table = pq.read_table(file)
    check_columns(table, file)
    return table


def _by_cell(table: Any) -> dict[str, list[Any]]:
    """The rows of each cell: as they lie together, one piece of the table. Of a cell without rows there is none."""
    import numpy as np

    encoded = table["cell"].combine_chunks()
    encoded = encoded if hasattr(encoded, "dictionary") else encoded.dictionary_encode()
    keys, codes = encoded.dictionary.to_pylist(), encoded.indices.to_numpy(zero_copy_only=False)
    starts = np.flatnonzero(np.diff(codes, prepend=-1)).tolist()
    found: dict[str, list[Any]] = {}
    for begin, end in zip(starts, [*starts[1:], len(codes)], strict=False):
        found.setdefault(keys[codes[begin]], []).append(table.slice(begin, end - begin))
    return found


def float_columns(schema: Any) -> list[str]:
    """The Parquet paths of all columns of floats."""
    import pyarrow as pa

    plain = [f.name for f in schema if pa.types.is_floating(f.type)]
    lists = [f"{f.name}.list.element" for f in schema if f.name == "logits"]
    return plain + lists
