"""Common corruptions of any data set: "corrupted:<data set>/<corruption>/<1-5>".

The kinds follow Hendrycks and Dietterich (ICLR 2019). The severities are purebench's own and scale with the size of
the images, so that 8x8 pixels can be corrupted too; results do not compare with those on the published files, as
CIFAR-10-C ("cifar10-c/fog/3").
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from defenses.data.sources.base import DatasetInfo, DataSource
from defenses.utils.errors import UserError, unknown

if TYPE_CHECKING:
    from defenses.data.indexed import IndexedImages
    from defenses.utils.arrays import F32, I64

_PREFIX = "corrupted:"
FORM = f"{_PREFIX}<data set>/<corruption>/<1-5>"
SEVERITIES = ("1", "2", "3", "4", "5")
VERSION = 2  # increased when the same name gives other images
# By severity; blur in shares of the shorter side. Names are RobustBench's where it has the corruption.
CORRUPTIONS: dict[str, tuple[float, ...]] = {
    "gaussian_noise": (0.04, 0.08, 0.12, 0.18, 0.26),  # standard deviation
    "shot_noise": (120, 60, 25, 12, 6),  # photons of a white pixel
    "impulse_noise": (0.02, 0.05, 0.1, 0.17, 0.27),  # share of pixels turned black or white
    "gaussian_blur": (0.035, 0.05, 0.065, 0.08, 0.1),  # standard deviation
    "motion_blur": (0.2, 0.4, 0.6, 0.8, 1.0),  # weight of the image smeared over a third of its side
    "brightness": (0.05, 0.1, 0.2, 0.3, 0.4),  # added
    "contrast": (0.7, 0.5, 0.35, 0.2, 0.1),  # factor
    "pixelate": (0.2, 0.4, 0.6, 0.8, 1.0),  # weight of the image at two fifths of its side
    "jpeg_compression": (70, 50, 30, 15, 7),  # quality
}


def parts_of(name: str) -> tuple[str, str, str] | None:
    """Return (data set, corruption, severity) of a name; None if it is of another kind.

    Raises:
        UserError: unknown corruption or severity.
    """
    if not name.startswith(_PREFIX):
        return None
    base, *rest = name.removeprefix(_PREFIX).rsplit("/", 2)
    if len(rest) != 2 or not base:
        raise UserError(f"{name}: name the data set, the corruption and the severity, as corrupted:digits/contrast/3")
    if rest[0] not in CORRUPTIONS:
        raise unknown("corruption", rest[0], CORRUPTIONS)
    if rest[1] not in SEVERITIES:
        raise UserError(f"{name}: the severity is {rest[1]}; it must be 1, 2, 3, 4 or 5")
    return base, rest[0], rest[1]


def find(name: str, root: Path, find_source: Callable[[str, Path], DataSource]) -> Corrupted | None:
    """Return the source of a corrupted data set; None if the name is of another kind.

    Args:
        name: "corrupted:digits/contrast/3".
        root: folder of data sets.
        find_source: finds the data set below.

    Raises:
        UserError: unknown corruption or severity; unknown data set below.
    """
    parts = parts_of(name)
    if parts is None:
        return None
    return Corrupted(name, find_source(parts[0], root), parts[1], int(parts[2]))


@dataclass(frozen=True)
class Corrupted:
    """A corruption of a data set's images; see `defenses.data.sources.base.DataSource`.

    Its noise is keyed by split, position and corruption: it is the same at every severity and in every run.
    """

    name: str
    base: DataSource
    corruption: str
    severity: int

    def info(self) -> DatasetInfo:
        """Return the description of the data set below without train, with the version of the corruptions."""
        below = self.base.info()
        splits = {split: n for split, n in below.splits.items() if split != "train"}
        revision = f"{below.revision}-corrupted{VERSION}"
        return DatasetInfo(self.name, below.num_classes, below.shape, revision, splits)

    def load(self, split: str) -> tuple[CorruptedImages, I64]:
        """Return images and labels of a split."""
        base, y = self.base.load(split)
        seed = zlib.crc32(f"{split}/{self.corruption}".encode())
        level = CORRUPTIONS[self.corruption][self.severity - 1]
        return CorruptedImages(base, self.corruption, level, seed), y

    def labels(self, split: str) -> I64:
        """Return labels of a split."""
        return self.base.labels(split)


@dataclass(frozen=True)
class CorruptedImages:
    """Images of a data set, corrupted when they are asked for: see `defenses.data.indexed.IndexedImages`.

    Args:
        base: the images.
        corruption: a key of `CORRUPTIONS`.
        level: strength, in its unit.
        seed: of the noise.
    """

    base: IndexedImages
    corruption: str
    level: float
    seed: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (C, H, W)."""
        return self.base.shape

    def at(self, positions: Sequence[int]) -> F32:
        """Return the images at some positions, with the noise of their positions."""
        import torch

        from defenses.core.noise import Noise
        from defenses.data.corruptions import corrupt

        x = torch.from_numpy(self.base.at(positions))
        made: F32 = corrupt(self.corruption, x, Noise.of(self.seed, positions), self.level).numpy()
        return made
