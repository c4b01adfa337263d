"""The frames of a results folder, each read when a picture needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from bench.analysis.claim_files import read_claims
from bench.analysis.claims import claims_on, measured_rows
from bench.analysis.leaderboard import leaderboard_of
from bench.analysis.public_names import public
from bench.analysis.records import read_records
from bench.analysis.results import Results, read_results
from bench.analysis.rows import SETTING
from bench.analysis.summary import summary
from bench.analysis.worst_case import worst_per_image
from bench.store.audits import current_audits
from bench.store.parts import DRAWS
from bench.store.reader import Part, read_folder
from defenses.utils.arrays import I64
from defenses.utils.text import file_name

_OF_CELL = ("defense", "attack", "view", *SETTING, "status")
_OF_MARGIN = ("training_seed", "attack", "view")
Setting = Mapping[str, object]


class Frames:
    """Frames of a board.

    Args:
        folder: the results folder.
        **known: frames, or parts of the folder, that are read already, by name.
    """

    def __init__(self, folder: Path, **known: pd.DataFrame | Results | list[Part]):
        self.folder = folder
        self.__dict__.update(known)

    @cached_property
    def results(self) -> Results:
        """Cells and records."""
        return read_results(self.folder)

    @cached_property
    def leaders(self) -> pd.DataFrame:
        """Rows of `bench.leaderboard`."""
        return leaderboard_of(self.folder, self.results, current_audits(self.folder), read_claims())

    @cached_property
    def attacked(self) -> pd.DataFrame:
        """Rows of `bench.summary`."""
        return summary(self.results)

    @cached_property
    def worst(self) -> pd.DataFrame:
        """Rows of `bench.worst_per_image`."""
        return worst_per_image(self.results)

    def records(self, label: str, setting: Setting) -> pd.DataFrame:
        """Return rows of `bench.load_results` of a defense under a threat, of the columns that pictures need.

        Args:
            label: of the defense.
            setting: columns `SETTING` of the rows.

        Returns:
            A row per image and finished cell; none for a defense that is not there.
        """
        cells, records = self.results.cells, self.results.records
        positions = self._cells.get((label, *(setting[name] for name in SETTING)), np.zeros(0, np.int64))
        rows = self.results.rows(positions)
        of_cells = cells[list(_OF_CELL)].iloc[records["at"].to_numpy()[rows]].reset_index(drop=True)
        of_images = records.iloc[rows].drop(columns=[*_OF_CELL], errors="ignore").reset_index(drop=True)
        frame: pd.DataFrame = pd.concat([of_cells, of_images], axis=1)
        return frame

    def votes(self, label: str, setting: Setting) -> pd.DataFrame:
        """Return the draws of a defense under a threat, rows of `bench.load_draws` without margins and logits.

        Args:
            label: of the defense.
            setting: columns `SETTING` of the rows.
        """
        positions = self._cells.get((label, *(setting[name] for name in SETTING)), np.zeros(0, np.int64))
        rows = self._of_parts(partial(_draws, cells=frozenset(positions.tolist())))
        of_cells = self.results.cells[["defense", *_OF_MARGIN, "norm", "eps"]].iloc[rows.pop("at").to_numpy()]
        return public(pd.concat([of_cells.reset_index(drop=True), rows], axis=1))

    @cached_property
    def parts(self) -> list[Part]:
        """Parts of the folder."""
        return read_folder(self.folder, lambda _, parts: parts)

    def _of_parts(self, read: Callable[[list[Part]], pd.DataFrame]) -> pd.DataFrame:
        try:
            return read(self.parts)
        except FileNotFoundError:  # a running board has merged parts
            return read_folder(self.folder, lambda _, parts: read(parts))

    def margins(self, label: str, setting: Setting) -> pd.DataFrame:
        """Return the margins of a defense under a threat, rows of `bench.load_results` with few columns.

        Args:
            label: of the defense.
            setting: columns `SETTING` of the rows.
        """
        positions = self._cells.get((label, *(setting[name] for name in SETTING)), np.zeros(0, np.int64))
        rows = self._margins.iloc[self.results.rows(positions)]
        of_cells = self.results.cells[list(_OF_MARGIN)].iloc[rows["at"].to_numpy()]
        return of_cells.assign(image=rows["index"].to_numpy(), margin=rows["margin"].to_numpy())

    def worst_of(self, label: str, setting: Setting) -> pd.DataFrame:
        """Return the rows of `worst` of a defense under a threat; arguments as in `margins`."""
        key = (label, *(setting[name] for name in SETTING))
        return self.worst.iloc[self._worst.get(key, np.zeros(0, np.int64))]

    @cached_property
    def _worst(self) -> Mapping[tuple[object, ...], I64]:
        return cast("Mapping[tuple[object, ...], I64]", self.worst.groupby(["defense", *SETTING]).indices)

    @cached_property
    def _margins(self) -> pd.DataFrame:
        """Margins of all records, in their order; tables do without them."""
        frame = self._of_parts(partial(read_records, columns=("index", "margin")))
        return frame.reindex(columns=["at", "index", "margin"])

    @cached_property
    def _cells(self) -> Mapping[tuple[object, ...], I64]:
        """Positions of the cells of each defense under each threat."""
        return cast("Mapping[tuple[object, ...], I64]", self.results.cells.groupby(["defense", *SETTING]).indices)

    @cached_property
    def claimed(self) -> pd.DataFrame:
        """Rows of `bench.claims_table`."""
        return claims_on(str(self.folder), measured_rows(self.folder), read_claims())


def _draws(parts: Sequence[Part], cells: Set[int]) -> pd.DataFrame:
    """Read the draws of the cells at some positions; `at` is that of their cell."""
    names = ("index", "draw", "held_out", "pred", "rejected")
    tables = [part.only(frozenset(cells)).table(DRAWS, names) for part in parts]
    frames = [table.drop_columns("cell").to_pandas() for table in tables if table is not None]
    drawn: pd.DataFrame = pd.concat(frames or [pd.DataFrame(columns=["at", *names])], ignore_index=True)
    return drawn


@dataclass(frozen=True)
class Threat:
    """A threat of a board, with its rows.

    Args:
        frames: of the board.
        setting: columns `SETTING` of its rows.
        several: the board has further threats.
    """

    frames: Frames
    setting: Setting
    several: bool

    @property
    def title(self) -> str:
        """Board and threat in words."""
        board = self.frames.leaders["board"].iloc[0]
        return f"{board}, {self.setting['norm']} {self.setting['eps']}"

    @property
    def suffix(self) -> str:
        """End of the names of its files: "" where there is one threat."""
        parts = (self.setting[name] for name in ("norm", "eps", "targets"))
        return f"-{file_name('-'.join(map(str, parts)))}" if self.several else ""

    def of(self, name: str) -> pd.DataFrame:
        """Return the rows of a frame of the board, by its name, under this threat."""
        frame: pd.DataFrame = getattr(self.frames, name)
        here = pd.Series(data=True, index=frame.index)
        for column, value in self.setting.items():
            here &= frame[column] == value
        return frame[here]


def threats_of(folder: Path) -> Iterator[Threat]:
    """Yield the threats of a board, in its order."""
    frames = Frames(folder)
    rows = frames.leaders[list(SETTING)].drop_duplicates().itertuples(index=False)
    settings = [dict(zip(SETTING, row, strict=True)) for row in rows]
    for setting in settings:
        yield Threat(frames, setting, len(settings) > 1)
