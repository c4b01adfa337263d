"""Data sets in a user's own .npz file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from defenses.data.sources.base import DatasetInfo, hash_of, remembered
from defenses.data.stamps import opened
from defenses.utils.errors import UserError

if TYPE_CHECKING:
    from defenses.data.indexed import IndexedImages
    from defenses.data.sources.npz_file import NpzFile
    from defenses.utils.arrays import I64

FORM = "<path>.npz"


@dataclass(frozen=True)
class Npz:
    """A data set in an .npz file; see `defenses.data.sources.base.DataSource`."""

    name: str
    file: NpzFile

    def info(self) -> DatasetInfo:
        """Return the description from headers and labels; the file is hashed."""
        from defenses.data.formats import to_nchw
        from defenses.data.sources.npz_file import SPLITS

        file, path = self.file, self.file.path
        shapes = {s: file.shape(s) for s in SPLITS if s in file.keys}
        chw = {to_nchw(shape, f"{path}: {file.keys[s][0]}", file.layout)[0] for s, shape in shapes.items()}
        if len(chw) > 1:
            raise UserError(f"{path}: the splits' images differ in shape; store one shape per file")
        labels = {s: file.labels(s) for s in shapes}
        for s, shape in shapes.items():
            if shape[0] != len(labels[s]) or not shape[0]:
                raise UserError(
                    f"{path}: {s} has {shape[0]} images and {len(labels[s])} labels; give one label per image"
                )
        key = repr((os.path.abspath(path), file.stamp.size, file.stamp.changed, file.stamp.status))
        revision = remembered(key, file.stamp.size, self._revision)
        return DatasetInfo(self.name, file.num_classes(), chw.pop(), revision, {s: n[0] for s, n in shapes.items()})

    def _revision(self) -> str:
        with opened(self.file.path, self.file.stamp) as f:
            return f"sha256-{hash_of(f, self.file.path)[:12]}"

    def load(self, split: str) -> tuple[IndexedImages, I64]:
        """Return images and labels of a split."""
        return self.file.images(split), self.file.labels(split)

    def labels(self, split: str) -> I64:
        """Return labels of a split."""
        return self.file.labels(split)


def find(name: str, root: Path) -> Npz | None:
    """Return the source of "path.npz", looked for in the current folder and then under the root; else None."""
    if not name.lower().endswith(".npz") or name.startswith(("folder:", "hf:")):
        return None
    from defenses.data.sources.npz_file import NpzFile

    path = Path(name).expanduser()
    below = root / path
    return Npz(name, NpzFile(below if not path.is_file() and below.is_file() else path))
