"""Data sets in a fixed order: digits (embedded), MNIST, CIFAR-10, and a user's own .npz. Nothing is downloaded.

Checkpoints and thresholds are chosen on `validation`; only `test` is attacked. The splits are disjoint:

- digits: scikit-learn's 1,797 images of 8x8, put in a fixed order (`digits_order`): 1,000 train, 297 validation,
  500 test. It is the test part of UCI's optdigits; the writers are not known, so they are shared between splits.
- mnist, cifar10: test is the official test part in its official order; validation the last 5,000 images of the
  official training part, train the rest.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defenses.errors import UserError, unknown

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

NAMES = ("digits", "mnist", "cifar10")
_SPLITS = ("train", "validation", "test")

_DIGITS_SHA = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
_MNIST = {  # sha256 of the decompressed contents of the files with the published md5
    "train-images-idx3-ubyte.gz": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte.gz": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte.gz": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte.gz": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_CIFAR = {  # md5, as published
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}


@dataclass(frozen=True)
class DatasetInfo:
    """What a data set is, without its images.

    Args:
        name: as given.
        num_classes: K; labels are 0 to K - 1.
        shape: (C, H, W).
        revision: which version of the data, and of its splits and order.
        splits: number of images per split.
    """

    name: str
    num_classes: int
    shape: tuple[int, int, int]
    revision: str
    splits: dict[str, int]


_INFO = {
    "digits": DatasetInfo(
        "digits", 10, (1, 8, 8), f"sha256-{_DIGITS_SHA[:12]}-split1", {"train": 1000, "validation": 297, "test": 500}
    ),
    "mnist": DatasetInfo(
        "mnist", 10, (1, 28, 28), "md5-f68b3c2dcbea-split1", {"train": 55000, "validation": 5000, "test": 10000}
    ),
    "cifar10": DatasetInfo(
        "cifar10", 10, (3, 32, 32), "md5-c99cafc15224-split1", {"train": 45000, "validation": 5000, "test": 10000}
    ),
}


@dataclass(frozen=True, eq=False)
class Dataset:
    """One split of a data set, in its fixed order.

    Args:
        name: of the data set.
        split: "train", "validation" or "test".
        x: images, float32 [N, C, H, W] in [0, 1].
        y: labels, int64 [N].
        num_classes: K.
        revision: which version of the data, and of its splits and order.
    """

    name: str
    split: str
    x: Tensor
    y: Tensor
    num_classes: int
    revision: str

    def __len__(self) -> int:
        return len(self.y)

    def sha(self, i: int) -> str:
        """Image i's identity: sha256 of its label (int64) and its pixels (float32, CHW), little-endian, in hex."""
        label, pixels = self.y[i].cpu().numpy(), self.x[i].cpu().contiguous().numpy()
        return hashlib.sha256(label.astype("<i8").tobytes() + pixels.astype("<f4").tobytes()).hexdigest()

    @cached_property
    def shas(self) -> tuple[str, ...]:
        """`sha` of every image; computed when first asked for."""
        return tuple(self.sha(i) for i in range(len(self)))

    def select(self, positions: Sequence[int] | Tensor) -> Dataset:
        """The images at some positions, in the order given."""
        import torch

        at = torch.as_tensor(positions, dtype=torch.int64)
        return Dataset(self.name, self.split, self.x[at], self.y[at], self.num_classes, self.revision)


def data_root(root: str | Path | None = None) -> Path:
    """The folder that holds data sets: `root`, else $PUREBENCH_DATA, else a checkout's ../shared/data, else the cache.

    Args:
        root: an explicit choice.
    """
    chosen = root or os.environ.get("PUREBENCH_DATA")
    if chosen:
        return Path(chosen).expanduser()
    checkout = Path(__file__).resolve().parents[1]
    beside = checkout.parent / "shared" / "data"
    if (checkout / "pyproject.toml").is_file() and beside.is_dir():
        return beside
    return Path.home() / ".cache" / "purebench" / "data"


def _npz_path(name: str, root: str | Path | None) -> Path:
    path = Path(name).expanduser()
    below = data_root(root) / path
    return below if not path.is_file() and below.is_file() else path


def _is_npz(name: str) -> bool:
    return name.lower().endswith(".npz")


def dataset_info(name: str, *, root: str | Path | None = None) -> DatasetInfo:
    """What a data set is, without loading it or importing torch.

    Args:
        name: "digits", "mnist", "cifar10" or the path of an .npz.
        root: where data sets lie; an .npz that is not found from the current folder is looked for there.

    Raises:
        UserError: unknown name, or an .npz that is missing or damaged.
    """
    if not _is_npz(name):
        if name not in _INFO:
            raise unknown("data set", name, [*NAMES, "<path>.npz"])
        return _INFO[name]
    from bench.readers import NpzFile, to_nchw

    path = _npz_path(name, root)
    file = NpzFile(path)
    shapes = {s: file.shape(s) for s in _SPLITS if s in file.keys}
    chw = {to_nchw(shape, f"{path}: {file.keys[s][0]}")[0] for s, shape in shapes.items()}
    if len(chw) > 1:
        raise UserError(f"{path}: the splits' images differ in shape; store one shape per file")
    labels = {s: file.labels(s) for s in shapes}
    for s, shape in shapes.items():
        if shape[0] != len(labels[s]) or not shape[0]:
            raise UserError(f"{path}: {s} has {shape[0]} images and {len(labels[s])} labels; give one label per image")
    with path.open("rb") as f:
        revision = f"sha256-{hashlib.file_digest(f, 'sha256').hexdigest()[:12]}"
    return DatasetInfo(name, file.num_classes(), chw.pop(), revision, {s: shape[0] for s, shape in shapes.items()})


def digits_order(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The fixed order of the digits: stratified, so that every stretch of it has nearly all classes equally often.

    Images of a class are ordered by the sha256 of "purebench digits <number>", a rule that no generator's version
    can change; the classes are then interleaved evenly.

    Args:
        labels: int [N], in scikit-learn's order.

    Returns:
        int64 [N]: positions in scikit-learn's order.
    """
    import numpy as np

    place: list[tuple[float, str, int]] = []
    for label in np.unique(labels):
        members = [int(i) for i in np.flatnonzero(labels == label)]
        ranked = sorted((hashlib.sha256(f"purebench digits {i}".encode()).hexdigest(), i) for i in members)
        place += [((rank + 0.5) / len(ranked), h, i) for rank, (h, i) in enumerate(ranked)]
    return np.array([i for _, _, i in sorted(place)], dtype=np.int64)


def _digits(split: str, root: Path) -> tuple[Any, Any]:  # noqa: ARG001
    import numpy as np
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x, y = bunch.images.astype(np.uint8), bunch.target.astype(np.int64)
    if hashlib.sha256(x.tobytes() + y.astype(np.uint8).tobytes()).hexdigest() != _DIGITS_SHA:
        raise UserError("scikit-learn's digits are not the known ones; install an unmodified scikit-learn")
    start = {"train": 0, "validation": 1000, "test": 1297}[split]
    at = digits_order(y)[start : start + _INFO["digits"].splits[split]]
    return x[at, None].astype(np.float32) / np.float32(16), y[at]


def _part(split: str, count: int) -> slice:
    """Train and validation within the official training part of `count` images."""
    return {"train": slice(0, count - 5000), "validation": slice(count - 5000, count)}.get(split, slice(None))


def _mnist(split: str, root: Path) -> tuple[Any, Any]:
    import numpy as np

    from bench.readers import read_idx

    folder, prefix = root / "MNIST" / "raw", "t10k" if split == "test" else "train"
    images, labels = f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz"
    x, y = (read_idx(folder / f, _MNIST[f], f"put MNIST's original {f} into {folder}") for f in (images, labels))
    at = _part(split, len(y))
    return x[at, None].astype(np.float32) / np.float32(255), y[at].astype(np.int64)


def _cifar10(split: str, root: Path) -> tuple[Any, Any]:
    import numpy as np

    from bench.readers import read_cifar

    folder = root / "cifar-10-batches-py"
    files = [f for f in _CIFAR if (f == "test_batch") == (split == "test")]
    remedy = f"unpack cifar-10-python.tar.gz (www.cs.toronto.edu/~kriz/cifar.html) in {root}"
    batches = [read_cifar(folder / f, _CIFAR[f], remedy) for f in files]
    x, y = (np.concatenate(part) for part in zip(*batches, strict=True))
    at = _part(split, len(y))
    return x[at].astype(np.float32) / np.float32(255), y[at]


_LOADERS = {"digits": _digits, "mnist": _mnist, "cifar10": _cifar10}


def load_dataset(name: str, split: str = "test", *, root: str | Path | None = None) -> Dataset:
    """One split of a data set, in its fixed order.

    Args:
        name: "digits", "mnist", "cifar10" or the path of an .npz with arrays x (or images) and y (or labels), which
            is a test split, or with x_train, y_train, x_validation... Images are uint8 or floats in [0, 1];
            `num_classes` may be given as an array, and else comes from the labels.
        split: "train", "validation" or "test".
        root: where data sets lie; see `data_root`.

    Raises:
        UserError: unknown name or split, a file is missing, damaged or not the published one, images outside [0, 1].
    """
    import torch

    if split not in _SPLITS:
        raise unknown("split", split, _SPLITS)
    info = dataset_info(name, root=root)
    if split not in info.splits:
        raise UserError(f"{name} has no {split} split (only {', '.join(info.splits)}); add x_{split} and y_{split}")
    if _is_npz(name):
        from bench.readers import NpzFile

        file = NpzFile(_npz_path(name, root))
        x, y = file.images(split), file.labels(split)
    else:
        x, y = _LOADERS[name](split, data_root(root))
    return Dataset(name, split, torch.from_numpy(x), torch.from_numpy(y), info.num_classes, info.revision)
