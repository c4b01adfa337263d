"""What a results folder holds, part by part: the lines of its cells, and their Parquet files as Arrow tables.

Numbers stand for cells in all of it: their positions in the order of the plan, which is the order of tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from bench.store.columns import check_columns
from bench.store.manifest import check_manifest
from bench.store.parts import CELLS, json_lines, opened, part_folders, read_lines, read_whole
from defenses.utils.errors import UserError

TEXTS = ("cell", "status", "error")  # read as codes into a list of the texts: they repeat
_TRIES = 3  # parts may be merged by a running board while they are read

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """A folder of a results folder.

    Args:
        folder: where it lies.
        cells: the keys of the cells that are read from it, with their positions in the plan.
    """

    folder: Path
    cells: Mapping[str, int]

    def only(self, positions: frozenset[int]) -> Part:
        """The same, with some of its cells."""
        return Part(self.folder, {key: at for key, at in self.cells.items() if at in positions})

    def table(self, name: str, columns: tuple[str, ...] = ()) -> Any:
        """A Parquet file as an Arrow table, or None where no cell of this part is read.

        Args:
            name: of the file.
            columns: to read; those that are not there are left out. None named: all.

        Returns:
            The rows of this part's cells alone. Besides the columns there is "at", int32: the position of the cell.

        Raises:
            UserError: the file cannot be read.
        """
        if not self.cells:
            return None
        with self._file(name) as file:
            return self._located(file.read(columns=_chosen(file, columns)))

    def batches(self, name: str, columns: tuple[str, ...]) -> Iterator[Any]:
        """The same table in pieces of whole cells, each of about a row group: what is held does not grow with the file.

        Raises:
            UserError: the file cannot be read, or the rows of a cell do not lie together.
        """
        import pyarrow as pa

        if not self.cells:
            return
        seen: set[int] = set()
        held = None
        with self._file(name) as file:
            chosen = _chosen(file, columns)
            for i in range(file.num_row_groups):
                table = self._located(file.read_row_group(i, columns=chosen))
                table = table if held is None else pa.concat_tables([held, table])
                at = table["at"].to_numpy()
                final = i + 1 == file.num_row_groups
                # The last cell may go on in the next row group.
                cut = len(at) if final else int(np.flatnonzero(np.diff(at, prepend=-1))[-1]) if len(at) else 0
                held = table.slice(cut)
                if cut:
                    self._together(name, at[:cut], seen)
                    yield table.slice(0, cut)

    def _together(self, name: str, at: npt.NDArray[np.int32], seen: set[int]) -> None:
        cells = at[np.flatnonzero(np.diff(at, prepend=-1))].tolist()
        if len({*cells}) < len(cells) or not seen.isdisjoint(cells):
            raise UserError(f"{self.folder / name}: the rows of a cell lie apart; {_AGAIN}")
        seen.update(cells)

    def _located(self, table: Any) -> Any:
        """With positions in place of keys, without the rows of other cells."""
        import pyarrow as pa

        at = _positions(table["cell"], self.cells)
        table = table.append_column("at", pa.array(at))
        return table if len(at) == 0 or at.min() >= 0 else table.filter(pa.array(at >= 0))

    @contextmanager
    def _file(self, name: str) -> Iterator[Any]:
        """A Parquet file, checked against its checksum."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.folder / name
        try:
            with opened(self.folder, name) as handle:
                source = pa.PythonFile(handle)
                metadata = pq.read_metadata(source)
                schema = metadata.schema.to_arrow_schema()
                check_columns(schema.empty_table(), path)
                texts = [name for name in TEXTS if name in schema.names]
                yield pq.ParquetFile(source, metadata=metadata, read_dictionary=texts, pre_buffer=True)
        except FileNotFoundError:
            raise
        except (OSError, ValueError, pa.ArrowException):
            raise UserError(f"{path} cannot be read; {_AGAIN}") from None


_AGAIN = "run the board again, which redoes these cells"


def _chosen(file: Any, columns: tuple[str, ...]) -> list[str] | None:
    return ["cell", *(c for c in columns if c in file.schema_arrow.names and c != "cell")] if columns else None


def _positions(column: Any, order: Mapping[str, int]) -> npt.NDArray[np.int32]:
    """The positions of keys; -1 for others."""
    found = [np.zeros(0, np.int32)]
    for chunk in column.chunks:
        encoded = chunk if hasattr(chunk, "dictionary") else chunk.dictionary_encode()
        known = np.array([order.get(key, -1) for key in encoded.dictionary.to_pylist()], np.int32)
        found.append(known[encoded.indices.to_numpy(zero_copy_only=False)] if len(known) else found[0])
    return np.concatenate(found)


def _plan(file: Path) -> list[dict[str, Any]]:
    try:
        return json_lines(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError):
        raise UserError(f"{file} cannot be read; run the board again, which writes it anew") from None


def _part_lines(part: Path) -> list[dict[str, Any]]:
    try:
        read_whole(part, CELLS)
        return read_lines(part)
    except ValueError as problem:
        raise UserError(f"{part}: {problem}; {_AGAIN}") from None


def _stored(folder: Path) -> tuple[list[dict[str, Any]], list[Part]]:
    found: dict[str, dict[str, Any]] = {}
    folders = part_folders(folder / "parts")
    # Merged parts first: a cell's own part is newer, but a failed result never hides a good one.
    for part in folders:
        for line in _part_lines(part):
            known = found.get(line["key"])
            if known is None or line["status"] == "ok" or known["status"] != "ok":
                line["part"] = part.name
                found[line["key"]] = line
    plan = _plan(folder / "plan.jsonl") if (folder / "plan.jsonl").is_file() else list(found.values())
    missing = {"status": "missing", "error": None, "part": None}
    # Labels are not part of a key: the plan has the current ones.
    lines = [found.get(p["key"], missing) | p for p in plan]
    held: dict[str, dict[str, int]] = {}
    for at, line in enumerate(lines):
        if line["status"] == "ok":
            held.setdefault(line["part"], {})[line["key"]] = at
    return lines, [Part(p, held.get(p.name, {})) for p in folders]


def read_folder(folder: Path, read: Callable[[list[dict[str, Any]], list[Part]], T]) -> T:
    """What `read` makes of the lines of all cells in table order, those without a result included, and of the parts.

    Cells that the plan does not name are left out: they belong to an older version of the board. `read` is called
    again when a part moves meanwhile.

    Raises:
        UserError: no results there, a damaged file, or parts that move all the time.
    """
    if not (folder / "parts").is_dir() and not (folder / "plan.jsonl").is_file():
        raise UserError(f"{folder} holds no results; give the folder of a run, as results/quickstart")
    for attempt in range(_TRIES):
        try:
            check_manifest(folder)
            return read(*_stored(folder))
        except FileNotFoundError as error:
            if attempt == _TRIES - 1:
                raise UserError(f"{error.filename} vanished while it was read; repeat the command") from None
    raise AssertionError
