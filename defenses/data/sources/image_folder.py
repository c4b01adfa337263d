"""Folders of pictures, class/picture.png or split/class/picture.png, in the order of torchvision's ImageFolder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from defenses.data import images
from defenses.data.sources.base import DatasetInfo, hold_out, revision_of
from defenses.utils.errors import UserError

if TYPE_CHECKING:
    from defenses.utils.arrays import F32, I64

FORM = "folder:<path>[?resize=256&crop=224&mode=RGB]"
_SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
_ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

Samples = list[tuple[Path, int]]  # file, label


@dataclass(frozen=True)
class Folder:
    """A folder of pictures; see `defenses.data.sources.base.Source`."""

    name: str
    path: Path
    preprocessing: images.Preprocessing
    classes: tuple[str, ...]
    splits: dict[str, Samples]

    def info(self) -> DatasetInfo:
        """Return the description from the listing, the hash of the files and at most one picture."""
        files = {str(file.relative_to(self.path).as_posix()): file for s in self.splits.values() for file, _ in s}
        first = next(iter(self.splits.values()))[0][0]
        shape = self.preprocessing.shape(lambda: images.open_picture(first))
        sizes = {split: len(samples) for split, samples in self.splits.items()}
        return DatasetInfo(self.name, len(self.classes), shape, revision_of(files), sizes)

    def load(self, split: str) -> tuple[F32, I64]:
        """Return images and labels of a split."""
        samples = self.splits[split]
        opened = ((str(file), images.open_picture(file)) for file, _ in samples)
        return images.stack(opened, len(samples), self.preprocessing), self.labels(split)

    def labels(self, split: str) -> I64:
        """Return labels of a split, from the names of its folders."""
        import numpy as np

        return np.array([label for _, label in self.splits[split]], dtype=np.int64)


def find(name: str, root: Path) -> Folder | None:
    """Return the source of "folder:path", looked for in the current folder and then under the root; else None."""
    if not name.startswith("folder:"):
        return None
    where, options = images.parse(name.removeprefix("folder:"))
    if not where:
        raise UserError(f"{name} names no folder; write {FORM}")
    path = Path(where).expanduser()
    below = root / path
    path = below if not path.is_dir() and below.is_dir() else path
    if not path.is_dir():
        raise UserError(f"there is no folder {path}; write folder:path/to/folder with class/picture.png in it")
    inside = {d.name for d in path.iterdir() if d.is_dir()}
    parts = {_SPLITS[d]: path / d for d in sorted(inside)} if inside and inside <= set(_SPLITS) else {"test": path}
    classes = sorted({d.name for part in parts.values() for d in part.iterdir() if d.is_dir()})
    splits = {split: _samples(part, classes) for split, part in parts.items()}
    return Folder(name, path, images.preprocessing_of(options, "RGB"), tuple(classes), _with_validation(splits))


def _samples(part: Path, classes: list[str]) -> Samples:
    """Return the pictures in ImageFolder's order: by class, then by folder and file name."""
    samples: Samples = []
    for label, name in enumerate(classes):
        for folder, _, files in sorted(os.walk(part / name, followlinks=True)):
            samples += [(Path(folder, f), label) for f in sorted(files) if f.lower().endswith(_ENDINGS)]
    if not samples:
        raise UserError(f"{part} holds no pictures in folders named by class; write {part}/<class>/<picture>.png")
    return samples


def _with_validation(splits: dict[str, Samples]) -> dict[str, Samples]:
    if "train" not in splits or "validation" in splits:
        return splits
    held = hold_out(len(splits["train"]))
    return {split: [splits["train"][i] for i in at] for split, at in held.items() if at} | {
        split: samples for split, samples in splits.items() if split != "train"
    }
