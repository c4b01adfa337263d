"""Folders of pictures, class/picture.png or split/class/picture.png, in the order of torchvision's ImageFolder."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from defenses.data import images
from defenses.data.pictures import Pictures
from defenses.data.sources.base import SPLIT_NAMES, DatasetInfo, hold_out, revision_of
from defenses.data.stamps import Stamp, stamp_of
from defenses.utils.errors import UserError
from defenses.utils.hints import hint

if TYPE_CHECKING:
    from PIL.Image import Image

    from defenses.utils.arrays import I64

FORM = "folder:<path>[?resize=256&crop=224&mode=RGB]"
_ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_OF_PROGRAMS = ("__MACOSX", "__pycache__")  # folders that programs leave; those with a leading dot too

Samples = list[tuple[str, int]]  # file below the folder, with "/"; label


@dataclass(frozen=True)
class Folder:
    """A folder of pictures; see `defenses.data.sources.base.DataSource`."""

    name: str
    path: Path
    preprocessing: images.Preprocessing
    classes: tuple[str, ...]
    splits: dict[str, Samples]

    def info(self) -> DatasetInfo:
        """Return the description from the listing, the hash of the files and at most one picture that is readable."""
        shape = self._pictures(next(iter(self.splits))).shape
        sizes = {split: len(samples) for split, samples in self.splits.items()}
        files = {name: f"{self.path}/{name}" for name in self._stamps}
        return DatasetInfo(self.name, len(self.classes), shape, revision_of(files, self._stamps), sizes)

    def load(self, split: str) -> tuple[Pictures[Image], I64]:
        """Return images and labels of a split."""
        return self._pictures(split), self.labels(split)

    def labels(self, split: str) -> I64:
        """Return labels of a split, from the names of its folders."""
        import numpy as np

        return np.array([label for _, label in self.splits[split]], dtype=np.int64)

    @cached_property
    def _stamps(self) -> dict[str, Stamp]:
        """Stamps of all files, by name."""
        names = [name for samples in self.splits.values() for name, _ in samples]
        return {name: stamp_of(f"{self.path}/{name}") for name in names}

    def _pictures(self, split: str) -> Pictures[Image]:
        samples = self.splits[split]

        def picture(i: int) -> tuple[str, Image]:
            name = samples[i][0]
            path = str(self.path / name)
            return path, images.open_picture(path, self._stamps[name])

        return Pictures(len(samples), picture, self.preprocessing.convert, self.preprocessing.shape)


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
    try:
        parts = _parts(path)
        listed = {split: _listed(path, part) for split, part in parts.items()}
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read ({error.strerror}); repeat the command") from None
    classes = _classes(path, listed.values())
    splits = {split: _samples(parts[split], classes, pictures) for split, pictures in listed.items()}
    return Folder(name, path, images.preprocessing_of(options, "RGB"), tuple(classes), _with_validation(splits))


def _parts(path: Path) -> dict[str, Path]:
    """Return the folders of the splits; the folder itself is the test split if it has folders of classes.

    Raises:
        UserError: some of its folders are splits and others are not, or two are the same split.
    """
    folders = _folders(path)
    parts: dict[str, Path] = {}
    for folder in folders:
        split = SPLIT_NAMES.get(folder.name.casefold())
        if split is None or (_pictures(folder) and not _folders(folder)):  # a class may be called "train"
            continue
        if split in parts:
            raise UserError(f"{path} has two folders of the {split} split, {parts[split].name} and {folder.name}; "
                            "keep one")  # fmt: skip
        parts[split] = folder
    if not parts:
        if len(folders) > 1 and all(folder.name.casefold() in SPLIT_NAMES for folder in folders):
            names = " and ".join(folder.name for folder in folders)
            raise UserError(f"{names} in {path} hold pictures and no folders of classes; write "
                            f"{folders[0]}/<class>/<picture>.png")  # fmt: skip
        return {"test": path}
    others = [folder.name for folder in folders if folder not in parts.values()]
    if others:
        names = ", ".join(folder.name for folder in parts.values())
        raise UserError(f"{path} has folders of splits ({names}) and others ({', '.join(others)[:80]}); move these out")
    return dict(sorted(parts.items()))


def _folders(path: Path) -> list[Path]:
    """Return the folders inside a folder, by name, without those of programs, which a hint names."""
    folders = sorted((d for d in path.iterdir() if d.is_dir()), key=lambda d: d.name)
    skipped = [d.name for d in folders if d.name.startswith(".") or d.name in _OF_PROGRAMS]
    if skipped:
        hint(f"{path}: {', '.join(skipped)} is no class and left out")
    return [d for d in folders if d.name not in skipped]


def _pictures(folder: Path) -> list[str]:
    """Return the names of the pictures that lie in a folder itself."""
    return sorted(name for name in os.listdir(folder) if name.lower().endswith(_ENDINGS))


def _listed(path: Path, part: Path) -> dict[str, list[str]]:
    """Return the pictures of every class of a split, as files below the folder, by folder and file name."""
    if loose := _pictures(part):
        hint(f"{part}: {len(loose)} pictures, as {loose[0]}, lie outside the folders of classes and are left out")
    return {folder.name: _below(folder, folder.relative_to(path).as_posix()) for folder in _folders(part)}


def _classes(path: Path, listed: Iterable[dict[str, list[str]]]) -> list[str]:
    """Return the names of the classes in text order, in which they are numbered.

    Raises:
        UserError: a class has no picture in any split.
    """
    filled: dict[str, bool] = {}
    for pictures in listed:
        for name, files in pictures.items():
            filled[name] = filled.get(name, False) or bool(files)
    empty = [name for name, full in filled.items() if not full]
    if empty and any(filled.values()):
        raise UserError(f'{path}: the folder "{empty[0]}" holds no pictures; if it is no class, move it out')
    classes = sorted(filled)
    numbers = [int(name) for name in classes if name.isdecimal()]
    if len(numbers) == len(classes) and numbers != sorted(numbers):
        hint(f'{path}: classes are numbered in text order, so that folder "{classes[2]}" is class 2 and not '
             f"{numbers[2]}; for the order of numbers, name folders with leading zeros")  # fmt: skip
    return classes


def _below(folder: Path, name: str) -> list[str]:
    """Return the pictures in a folder and in those below, with `name` for the folder, by folder and file name."""
    root = str(folder)
    walked = sorted(os.walk(root, followlinks=True))
    below = ((f"{name}{at[len(root) :]}".replace(os.sep, "/"), files) for at, _, files in walked)
    return [f"{at}/{f}" for at, files in below for f in sorted(files) if f.lower().endswith(_ENDINGS)]


def _samples(part: Path, classes: list[str], pictures: dict[str, list[str]]) -> Samples:
    """Return the pictures in ImageFolder's order: by class, then by folder and file name."""
    samples = [(file, label) for label, name in enumerate(classes) for file in pictures.get(name, ())]
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
