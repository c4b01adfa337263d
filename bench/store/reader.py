"""Read a results folder part by part: lines of cells, and Parquet files as Arrow tables.

A cell is identified by its position in the plan, which is the order of tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bench.store.columns import check_columns
from bench.store.jsonl import json_lines, uncollected
from bench.store.kinds import NO_RESULTS, kind_of, refuse_other_kind
from bench.store.manifest import check_manifest
from bench.store.parts import CELLS, CellRecord, lines_of, opened, part_folders, read_whole
from defenses.utils.errors import UserError

CHALLENGES = "challenges.jsonl"  # beside the plan, which a run writes anew
TEXTS = ("cell", "status", "error")  # columns read with a dictionary: their texts repeat
_TRIES = 3  # parts may be merged by a running board while they are read
_AGAIN = "run the board again, which redoes these cells"

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """A part of a results folder.

    Args:
        folder: folder of the part.
        cells: positions in the plan, by key, of the cells that are read from it.
    """

    folder: Path
    cells: Mapping[str, int]

    def only(self, positions: frozenset[int]) -> Part:
        """Return the part with the cells at some positions."""
        return Part(self.folder, {key: at for key, at in self.cells.items() if at in positions})

    def table(self, name: str, columns: tuple[str, ...] = ()) -> Any:
        """Read a Parquet file.

        Args:
            name: name of the file.
            columns: columns to read, missing ones left out; empty: all.

        Returns:
            Arrow table of the rows of `cells`, with the column "at", int32: position of the cell. None without cells.

        Raises:
            UserError: the file cannot be read.
        """
        if not self.cells:
            return None
        with self._file(name) as file:
            return self._located(file.read(columns=_chosen(file, columns)))

    def batches(self, name: str, columns: tuple[str, ...]) -> Iterator[pa.Table]:
        """Yield the table in pieces of whole cells, each of about a row group; memory does not grow with the file.

        Args:
            name: name of the file.
            columns: columns to read, missing ones left out; empty: all.

        Raises:
            UserError: the file cannot be read, or the rows of a cell are not adjacent.
        """
        if not self.cells:
            return
        read: set[int] = set()
        rest = None
        with self._file(name) as file:
            chosen = _chosen(file, columns)
            for i in range(file.num_row_groups):
                table = self._located(file.read_row_group(i, columns=chosen))
                table = table if rest is None else pa.concat_tables([rest, table], promote_options="permissive")
                at = table["at"].to_numpy()
                final = i + 1 == file.num_row_groups
                # The last cell may go on in the next row group.
                cut = len(at) if final else int(np.flatnonzero(np.diff(at, prepend=-1))[-1]) if len(at) else 0
                rest = table.slice(cut)
                if cut:
                    self._check_adjacent(name, at[:cut], read)
                    yield table.slice(0, cut)

    def _check_adjacent(self, name: str, at: npt.NDArray[np.int32], read: set[int]) -> None:
        """Refuse rows of a cell that are not adjacent; add the cells to `read`."""
        cells = at[np.flatnonzero(np.diff(at, prepend=-1))].tolist()
        if len({*cells}) < len(cells) or not read.isdisjoint(cells):
            raise UserError(f"{self.folder / name}: the rows of a cell lie apart; {_AGAIN}")
        read.update(cells)

    def _located(self, table: pa.Table) -> pa.Table:
        """Return a table with the column "at", without the rows of other cells."""
        at = _positions(table["cell"], self.cells)
        table = table.append_column("at", pa.array(at))
        return table if len(at) == 0 or at.min() >= 0 else table.filter(pa.array(at >= 0))

    @contextmanager
    def _file(self, name: str) -> Iterator[pq.ParquetFile]:
        """Open a Parquet file, checked against its checksum and for its columns."""
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


def _chosen(file: pq.ParquetFile, columns: tuple[str, ...]) -> list[str] | None:
    return ["cell", *(c for c in columns if c in file.schema_arrow.names and c != "cell")] if columns else None


def _positions(column: pa.ChunkedArray, order: Mapping[str, int]) -> npt.NDArray[np.int32]:
    """Return the positions of keys, int32; -1 for unknown ones."""
    pieces = [np.zeros(0, np.int32)]
    for chunk in column.chunks:
        encoded = chunk if hasattr(chunk, "dictionary") else chunk.dictionary_encode()
        codes = np.array([order.get(key, -1) for key in encoded.dictionary.to_pylist()], np.int32)
        pieces.append(codes[encoded.indices.to_numpy(zero_copy_only=False)] if len(codes) else pieces[0])
    return np.concatenate(pieces)


def read_plan(file: Path) -> list[CellRecord]:
    """Return the lines of a plan.jsonl.

    Raises:
        UserError: it is damaged.
    """
    try:
        return json_lines(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError):
        raise UserError(f"{file} cannot be read; run the board again, which writes it anew") from None


def read_challenges(folder: Path) -> list[CellRecord]:
    """Return the cells of images that `purebench challenge --keep` has added to a board, as lines of a plan.

    Raises:
        UserError: the file is damaged.
    """
    file = folder / CHALLENGES
    if not file.is_file():
        return []
    try:
        lines = json_lines(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        lines = [None]
    if not all(isinstance(line, dict) and "key" in line for line in lines):
        raise UserError(f"{file} is damaged; remove it, and keep the images again by purebench challenge")
    return lines


def _part_lines(part: Path, without: Sequence[str]) -> list[CellRecord]:
    try:
        lines = lines_of(part, read_whole(part, CELLS))
    except ValueError as problem:
        raise UserError(f"{part}: {problem}; {_AGAIN}") from None
    for line in lines:
        for name in without:
            line.pop(name, None)  # type: ignore[misc]
    return lines


def _stored(folder: Path, without: Sequence[str] = ()) -> tuple[list[CellRecord], list[Part]]:
    cells: dict[str, CellRecord] = {}
    folders = part_folders(folder / "parts")
    # Merged parts come first: cell parts are newer, but a failed result never replaces a good one.
    for part in folders:
        for line in _part_lines(part, without):
            earlier = cells.get(line["key"])
            if earlier is None or line["status"] == "ok" or earlier["status"] != "ok":
                line["part"] = part.name
                cells[line["key"]] = line
    plan = read_plan(folder / "plan.jsonl") if (folder / "plan.jsonl").is_file() else list(cells.values())
    missing: CellRecord = {"status": "missing", "error": None, "part": None}
    challenges = {line["key"]: line for line in read_challenges(folder)}
    plan += challenges.values() if (folder / "plan.jsonl").is_file() else ()
    # Labels are not part of a key: the plan has the current ones.
    lines: list[CellRecord] = [{**cells.get(p["key"], missing), **p} for p in plan]
    positions: dict[str, dict[str, int]] = {}
    for at, line in enumerate(lines):
        if line["status"] == "ok":
            positions.setdefault(str(line["part"]), {})[line["key"]] = at
    return lines, [Part(p, positions.get(p.name, {})) for p in folders]


def read_folder(folder: Path, read: Callable[[list[CellRecord], list[Part]], T], *, without: Sequence[str] = ()) -> T:
    """Return `read` of the lines of all planned cells and of the parts.

    Args:
        folder: the results folder.
        read: function of the lines, in table order, those without a result included, and of the parts. It is called
            again where a part moved meanwhile.
        without: keys that its lines may lack. Thousands of lines with their identities take more memory than all else
            that tables need.

    Raises:
        UserError: no results there, a damaged file, or parts that moved at every attempt.
    """
    refuse_other_kind(folder, "load_results")
    if kind_of(folder) is None:
        raise UserError(NO_RESULTS.format(folder))
    for attempt in range(_TRIES):
        try:
            check_manifest(folder)
            with uncollected():
                return read(*_stored(folder, without))
        except FileNotFoundError as error:
            if attempt == _TRIES - 1:
                raise UserError(f"{error.filename} vanished while it was read; repeat the command") from None
    raise AssertionError
