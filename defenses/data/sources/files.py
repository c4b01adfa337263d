"""The files of a data set, where its name tells them."""

from __future__ import annotations

from pathlib import Path

from defenses.data.sources.corrupted import parts_of
from defenses.data.sources.image_folder import Folder
from defenses.data.sources.npz import Npz
from defenses.data.sources.published import CHECKSUMS, Published
from defenses.data.sources.registry import find_source


def files_of(name: str, root: Path) -> list[Path]:
    """Return the files of a data set: an .npz, a folder of pictures, a published one; none of another kind.

    Args:
        name: see `defenses.data.dataset.load_dataset`.
        root: folder of data sets.

    Raises:
        UserError: unknown name, or files that are missing.
    """
    corrupted = parts_of(name)
    match find_source(corrupted[0] if corrupted else name, root):
        case Npz(file=file):
            return [file.path]
        case Folder(path=path, splits=splits):
            return sorted(path / file for samples in splits.values() for file, _ in samples)
        case Published() as source:
            return [path for file in CHECKSUMS.get(source.name, ()) if (path := source.folder / file).is_file()]
    return []
