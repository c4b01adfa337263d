"""Read a run that is compared with another: its cells, records and draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from bench.analysis.results import Results, load_results, read_results
from bench.store.kinds import folder_named
from bench.store.parts import DRAWS, CellRecord
from bench.store.reader import Part, read_folder
from defenses.utils.arrays import I64

NAMES = ("defense", "training_seed", "attack", "view", "dataset", "split", "norm", "eps", "targets")
RowName = tuple[object, ...]  # values of NAMES


@dataclass(frozen=True, eq=False)
class RunSide:
    """A run.

    Args:
        folder: the results folder.
        lines: of the planned cells by key, in table order; "status" is "missing" where one was not run.
        frame: of `load_results`.
        results: of `read_results`.
    """

    folder: Path
    lines: dict[str, CellRecord]
    frame: pd.DataFrame
    results: Results
    _read: dict[Path, pa.Table] = field(default_factory=dict)  # draws of the last part

    def part(self, key: str) -> Path:
        """Return the folder of the part that holds a finished cell."""
        return self.folder / "parts" / str(self.lines[key]["part"])

    @cached_property
    def _positions(self) -> dict[str, I64]:
        """Positions of the records of each cell."""
        return {str(key): np.asarray(at) for key, at in self.frame.groupby("cell").indices.items()}

    def records(self, keys: Sequence[str]) -> pd.DataFrame:
        """Return the records of finished cells, a row per image."""
        at = np.concatenate([np.zeros(0, np.int64), *(self._positions[key] for key in keys)])
        return self.frame.take(at)

    def draws(self, keys: Sequence[str]) -> pd.DataFrame:
        """Return the draws of finished cells, as they are stored.

        Raises:
            FileNotFoundError: a part has moved.
            UserError: a file is damaged.
        """
        by_part: dict[Path, list[str]] = {}
        for key in keys:
            by_part.setdefault(self.part(key), []).append(key)
        frames = [self._draws(part, of) for part, of in by_part.items()]
        frame: pd.DataFrame = pd.concat(frames, ignore_index=True)
        return frame

    def _draws(self, part: Path, keys: list[str]) -> pd.DataFrame:
        if part not in self._read:
            self._read.clear()
            held = [key for key, line in self.lines.items() if line["status"] == "ok" and self.part(key) == part]
            self._read[part] = Part(part, {key: at for at, key in enumerate(held)}).table(DRAWS)
        table = self._read[part]
        frame: pd.DataFrame = table.filter(pc.is_in(table["cell"].cast(pa.string()), pa.array(keys))).to_pandas()
        return frame


def read_side(path: str | Path) -> RunSide:
    """Read a run.

    Raises:
        UserError: no results of a board there, or a damaged file.
    """
    folder = folder_named(path)
    lines: list[CellRecord] = read_folder(folder, lambda found, _: found)
    return RunSide(folder, {line["key"]: line for line in lines}, load_results(folder), read_results(folder))


def row_name(line: CellRecord) -> RowName:
    """Return the row of a table that a cell belongs to, as the values of `NAMES`."""
    return tuple(line.get(name, 0 if name == "training_seed" else "") for name in NAMES)
