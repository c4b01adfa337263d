"""The frames of a results folder, each read when a picture needs it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from bench.analysis.claim_files import read_claims
from bench.analysis.claims import claims_on, measured_rows
from bench.analysis.leaderboard import leaderboard_of
from bench.analysis.results import Results, read_results
from bench.analysis.rows import SETTING
from bench.analysis.summary import summary
from bench.analysis.worst_case import worst_per_image
from bench.store.audits import current_audits
from defenses.utils.text import file_name

_OF_CELL = ("defense", "attack", "view", *SETTING, "status")
Setting = Mapping[str, object]


class Frames:
    """Frames of a board.

    Args:
        folder: the results folder.
        **known: frames that are read already, by name.
    """

    def __init__(self, folder: Path, **known: pd.DataFrame | Results):
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

    @cached_property
    def records(self) -> pd.DataFrame:
        """Rows of `bench.load_results`, of the columns that pictures need."""
        cells = self.results.cells[list(_OF_CELL)].iloc[self.results.records["at"]].reset_index(drop=True)
        return pd.concat([cells, self.results.records.drop(columns=[*_OF_CELL], errors="ignore")], axis=1)

    @cached_property
    def claimed(self) -> pd.DataFrame:
        """Rows of `bench.claims_table`."""
        return claims_on(str(self.folder), measured_rows(self.folder), read_claims())


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
