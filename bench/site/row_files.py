"""Files of a row: its numbers as CSV, its entry in RobustBench's format, and the parts that hold its results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.report.model_info_export import entry_of, rows_among
from bench.report.plain import to_csv
from bench.site.model import SiteBoard, SiteRow, StoredFile
from bench.store.parts import SUMS, part_folders
from defenses.utils.errors import UserError
from defenses.utils.names import portable

FOLDER = "r"


@dataclass(frozen=True)
class RowFiles:
    """Files of a row.

    Args:
        csv: its rows of `bench.summary`.
        info: JSON of RobustBench's model_info, "" if there is none.
        absent: why there is none.
        stored: files of the parts that hold its results.
    """

    csv: str
    info: str
    absent: str
    stored: tuple[StoredFile, ...]

    def texts(self, board: SiteBoard, row: SiteRow) -> dict[str, str]:
        """Return the files of the site by path."""
        start = f"{FOLDER}/{board.slug}/{row.slug}"
        return {f"{start}.csv": self.csv} | ({f"{start}.json": self.info} if self.info else {})


def part_files(folder: Path) -> dict[str, tuple[StoredFile, ...]]:
    """Return the files of each part of a results folder, by the name of the part.

    Args:
        folder: the results folder, whose parts are whole.
    """
    return {part.name: tuple(_files(part)) for part in part_folders(folder / "parts")}


def _files(part: Path) -> list[StoredFile]:
    sums: Mapping[str, str] = json.loads((part / SUMS).read_bytes())
    return [
        StoredFile(f"parts/{part.name}/{name}", (part / name).stat().st_size, sha) for name, sha in sorted(sums.items())
    ]


def row_files(board: SiteBoard, row: SiteRow) -> RowFiles:
    """Return the files of a row.

    Args:
        board: its board.
        row: the row, read with its summary.
    """
    assert row.summary is not None
    frame = row.summary.drop(columns=["name", "weights", "protocols"], errors="ignore")
    frame = frame.assign(dataset=frame["dataset"].map(portable))
    try:
        rows = rows_among(frame, row.lines, row.label, board.source.name, passes=row.passes)
        info, absent = entry_of(rows, row.label, board.source.name).to_json(), ""
    except UserError as error:
        info, absent = "", str(error)
    parts = dict.fromkeys(str(line["part"]) for line in row.lines if line.get("part"))
    return RowFiles(to_csv(frame), info, absent, tuple(file for part in parts for file in board.files.get(part, ())))
