"""Published data sets by name, checked against their published checksums; digits come with scikit-learn."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defenses.data.sources.base import DatasetInfo
from defenses.utils.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from defenses.data.indexed import StoredImages
    from defenses.utils.arrays import I64, U8

NAMES = ("digits", "mnist", "fashion-mnist", "cifar10", "cifar100", "svhn")

_DIGITS_SHA = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
# By data set: file -> checksum. MNIST's are sha256 of the contents, decompressed, of the files with the published md5;
# all others are the published md5 of the files themselves (torchvision 0.29 lists them).
CHECKSUMS = {
    "mnist": {
        "train-images-idx3-ubyte.gz": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte.gz": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte.gz": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte.gz": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
    "cifar10": {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
    "cifar100": {"train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    "svhn": {
        "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
        "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    },
}
_FOLDERS = {"mnist": "MNIST/raw", "fashion-mnist": "FashionMNIST/raw", "cifar10": "cifar-10-batches-py"}
_FOLDERS |= {"cifar100": "cifar-100-python", "svhn": "."}
_ORIGIN = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST (github.com/zalandoresearch/fashion-mnist)"}
_KRIZ = "www.cs.toronto.edu/~kriz/cifar.html"
_SVHN = "ufldl.stanford.edu/housenumbers"


def _sizes(train: int, test: int) -> dict[str, int]:
    return {"train": train - 5000, "validation": 5000, "test": test}


_GREY, _COLOUR = (1, 28, 28), (3, 32, 32)
_INFO = {
    "digits": DatasetInfo(
        "digits", 10, (1, 8, 8), f"sha256-{_DIGITS_SHA[:12]}-split1", {"train": 1000, "validation": 297, "test": 500}
    ),
    "mnist": DatasetInfo("mnist", 10, _GREY, "md5-f68b3c2dcbea-split1", _sizes(60000, 10000)),
    "fashion-mnist": DatasetInfo("fashion-mnist", 10, _GREY, "md5-8d4fb7e6c68d-split1", _sizes(60000, 10000)),
    "cifar10": DatasetInfo("cifar10", 10, _COLOUR, "md5-c99cafc15224-split1", _sizes(50000, 10000)),
    "cifar100": DatasetInfo("cifar100", 100, _COLOUR, "md5-16019d7e3df5-split1", _sizes(50000, 10000)),
    "svhn": DatasetInfo("svhn", 10, _COLOUR, "md5-e26dedcc434d-split1", _sizes(73257, 26032)),
}


@dataclass(frozen=True)
class Published:
    """A data set of `NAMES`; see `defenses.data.sources.base.DataSource`."""

    name: str
    root: Path

    def info(self) -> DatasetInfo:
        """Return the description, without a file."""
        return _INFO[self.name]

    def load(self, split: str) -> tuple[StoredImages, I64]:
        """Return images and labels of a split."""
        from defenses.data.indexed import StoredImages

        if self.name == "digits":
            x, y = _digits(split)
            return StoredImages.of_bytes(x, white=16), y
        images, labels = _READERS[self.name](self, split)
        at = _part(split, len(labels))
        return StoredImages.of_bytes(images[at]), labels[at]

    def labels(self, split: str) -> I64:
        """Return labels of a split."""
        if self.name == "digits":
            return _digits(split)[1]
        labels = _idx(self, split, "labels") if self.name.endswith("mnist") else _READERS[self.name](self, split)[1]
        return labels[_part(split, len(labels))].astype("int64")

    @property
    def folder(self) -> Path:
        """Return the folder of its files."""
        return self.root / _FOLDERS[self.name]


def find(name: str, root: Path) -> Published | None:
    """Return the source of a published data set; None if the name is of another kind."""
    return Published(name, root) if name in NAMES else None


def _part(split: str, count: int) -> slice:
    """Return the slice of a split in the official part of `count` images."""
    return {"train": slice(0, count - 5000), "validation": slice(count - 5000, count)}.get(split, slice(None))


def digits_order(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the fixed order of the digits: stratified, with classes evenly interleaved.

    Images of a class are ordered by the sha256 of "purebench digits <number>", which depends on no random generator;
    the classes are then interleaved, so that every stretch has nearly equally many of each.

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


def _digits(split: str) -> tuple[U8, I64]:
    """Return the images of a split, uint8 [N, 1, 8, 8] from 0 to 16, and their labels."""
    import numpy as np

    # Only the file is read: importing scikit-learn is slow.
    package = importlib.util.find_spec("sklearn")
    folders = (package.submodule_search_locations if package else None) or ["scikit-learn"]
    try:
        with gzip.open(Path(folders[0], "datasets/data/digits.csv.gz")) as file:
            rows = np.loadtxt(file, delimiter=",")
        x, y = rows[:, :-1].reshape(-1, 8, 8).astype(np.uint8), rows[:, -1].astype(np.int64)
        is_original = hashlib.sha256(x.tobytes() + y.astype(np.uint8).tobytes()).hexdigest() == _DIGITS_SHA
    except (OSError, EOFError, ValueError):
        is_original = False
    if not is_original:
        raise UserError("scikit-learn's digits are not the known ones; install an unmodified scikit-learn")
    start = {"train": 0, "validation": 1000, "test": 1297}[split]
    at = digits_order(y)[start : start + _INFO["digits"].splits[split]]
    return x[at, None], y[at]


def _idx(source: Published, split: str, kind: str) -> U8:
    from defenses.data.formats import read_idx

    prefix, rank = ("t10k" if split == "test" else "train"), {"images": 3, "labels": 1}[kind]
    file = f"{prefix}-{kind}-idx{rank}-ubyte.gz"
    remedy = f"put the original {file} of {_ORIGIN[source.name]} into {source.folder}"
    return read_idx(source.folder / file, CHECKSUMS[source.name][file], remedy)


def _mnist(source: Published, split: str) -> tuple[U8, I64]:
    import numpy as np

    return _idx(source, split, "images")[:, None], _idx(source, split, "labels").astype(np.int64)


def _cifar(source: Published, split: str) -> tuple[U8, I64]:
    import numpy as np

    from defenses.data.formats import read_cifar

    sums = CHECKSUMS[source.name]
    files = [f for f in sums if f.startswith("test") == (split == "test")]
    kind, labels = ("10", b"labels") if source.name == "cifar10" else ("100", b"fine_labels")
    remedy = f"unpack cifar-{kind}-python.tar.gz ({_KRIZ}) in {source.root}"
    batches = [read_cifar(source.folder / f, sums[f], remedy, labels) for f in files]
    x, y = (np.concatenate(part) for part in zip(*batches, strict=True))
    return x, y


def _svhn(source: Published, split: str) -> tuple[U8, I64]:
    from defenses.data.formats import read_svhn

    file = f"{'test' if split == 'test' else 'train'}_32x32.mat"
    return read_svhn(source.folder / file, CHECKSUMS["svhn"][file], f"put {file} ({_SVHN}) into {source.root}")


_READERS: dict[str, Callable[[Published, str], tuple[Any, I64]]] = {
    "mnist": _mnist,
    "fashion-mnist": _mnist,
    "cifar10": _cifar,
    "cifar100": _cifar,
    "svhn": _svhn,
}
