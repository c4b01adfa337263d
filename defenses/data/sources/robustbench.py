"""RobustBench's data: CIFAR-10-C, CIFAR-100-C, ImageNet-C, ImageNet-3DCC and 5,000 images of ImageNet.

Files, order and preprocessing are RobustBench's. Its loaders read all images at once, and download what is missing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defenses.data.images import open_picture
from defenses.data.pictures import Pictures
from defenses.data.sources.base import DatasetInfo, revision_of
from defenses.data.stamps import stamp_of
from defenses.utils.errors import UserError, unknown
from defenses.utils.introspection import package_folder

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from defenses.data.indexed import MappedImages
    from defenses.utils.arrays import F32, I64

# fmt: off
CORRUPTIONS: tuple[str, ...] = (
    "shot_noise", "motion_blur", "snow", "pixelate", "gaussian_noise", "defocus_blur", "brightness", "fog",
    "zoom_blur", "frost", "glass_blur", "impulse_noise", "contrast", "jpeg_compression", "elastic_transform",
)
CORRUPTIONS_3D: tuple[str, ...] = (
    "near_focus", "far_focus", "bit_error", "color_quant", "flash", "fog_3d", "h265_abr", "h265_crf", "iso_noise",
    "low_light", "xy_motion_blur", "z_motion_blur",
)
# fmt: on
PREPROCESSINGS = {"Res256Crop224": 224, "Crop288": 288, "Res224": 224, "BicubicRes256Crop224": 224}  # -> pixels

# By kind: folder, classes, record on Zenodo.
_CIFAR = {"cifar10-c": ("CIFAR-10-C", 10, "2535967"), "cifar100-c": ("CIFAR-100-C", 100, "3555552")}
_IMAGENET = {"imagenet-c": "ImageNet-C", "imagenet-3dcc": "ImageNet-3DCC"}
_PER_SEVERITY = 10000  # rows of CIFAR's files
FORMS = (
    "cifar10-c/<corruption>/<1-5>",
    "cifar100-c/<corruption>/<1-5>",
    "imagenet[/<preprocessing>]",
    "imagenet-c/<corruption>/<1-5>",
    "imagenet-3dcc/<corruption>/<1-5>",
)


def find(name: str, root: Path) -> CorruptCifar | ImageNet | None:
    """Return the source of a name of RobustBench's data; None if it is of another kind.

    Raises:
        UserError: a corruption, severity or preprocessing unknown to RobustBench.
    """
    kind, *rest = name.split("/")
    if kind in _CIFAR:
        return CorruptCifar(name, root, kind, *_corruption(name, rest, CORRUPTIONS))
    if kind in _IMAGENET:
        corruptions = CORRUPTIONS if kind == "imagenet-c" else CORRUPTIONS_3D
        return ImageNet(name, root, None, (kind, *_corruption(name, rest, corruptions)))
    if kind != "imagenet":
        return None
    if len(rest) > 1 or (rest and rest[0] not in PREPROCESSINGS):
        raise unknown("preprocessing of imagenet", "/".join(rest), PREPROCESSINGS)
    return ImageNet(name, root, rest[0] if rest else "Res256Crop224")


def _corruption(name: str, rest: list[str], corruptions: tuple[str, ...]) -> tuple[str, int]:
    if len(rest) != 2:
        raise UserError(f"{name}: name the corruption and the severity, as {name.split('/')[0]}/{corruptions[0]}/5")
    if rest[0] not in corruptions:
        raise unknown(f"corruption of {name.split('/')[0]}", rest[0], corruptions)
    if rest[1] not in ("1", "2", "3", "4", "5"):
        raise UserError(f"{name}: the severity is {rest[1]}; it must be 1, 2, 3, 4 or 5")
    return rest[0], int(rest[1])


@dataclass(frozen=True)
class CorruptCifar:
    """A corruption of the test images of CIFAR; see `defenses.data.sources.base.DataSource`."""

    name: str
    root: Path
    kind: str
    corruption: str
    severity: int

    def info(self) -> DatasetInfo:
        """Return the description from the files' headers; the files are hashed."""
        folder, classes, record = _CIFAR[self.kind]
        files = {f: self.root / folder / f for f in (f"{self.corruption}.npy", "labels.npy")}
        for path in files.values():
            if not path.is_file():
                where = f"unpack {folder}.tar (zenodo.org/records/{record}) in {self.root}"
                raise UserError(f"{path} is missing; {where}")
        rows, height, width, channels = _mapped(files[f"{self.corruption}.npy"], 4).shape
        available = min(rows, len(_mapped(files["labels.npy"], 1)), self.severity * _PER_SEVERITY)
        count = available - (self.severity - 1) * _PER_SEVERITY
        if count < 1:
            path = files[f"{self.corruption}.npy"]
            raise UserError(f"{path} has {rows} images, none of severity {self.severity}; unpack the original again")
        return DatasetInfo(self.name, classes, (channels, height, width), revision_of(files), {"test": count})

    def load(self, split: str) -> tuple[MappedImages, I64]:
        """Return images and labels."""
        from defenses.data.indexed import MappedImages, Storage

        info = self.info()
        path = self._folder / f"{self.corruption}.npy"
        stamp, array = stamp_of(path), _mapped(path, 4)
        before, count = (self.severity - 1) * _PER_SEVERITY, info.splits["test"]
        start = array.offset + before * array[0].nbytes
        stored = (count, *array.shape[1:])
        return MappedImages(path, stamp, start, array.dtype, stored, False, Storage(info.shape, True)), self.labels(
            split
        )

    def labels(self, split: str) -> I64:
        """Return labels."""
        import numpy as np

        count = self.info().splits["test"]
        return np.asarray(_mapped(self._folder / "labels.npy", 1)[:count], np.int64)

    @property
    def _folder(self) -> Path:
        return self.root / _CIFAR[self.kind][0]


@dataclass(frozen=True)
class ImageNet:
    """RobustBench's 5,000 images of ImageNet's validation part, clean or corrupt; see `base.DataSource`.

    Args:
        name: of the data set.
        root: folder with imagenet/val, ImageNet-C/<corruption>/<severity> and so on, each with the 1,000 class folders.
        preprocessing: RobustBench's name for it; None: none, as for the corrupt files.
        corruption: kind, corruption and severity; None: clean.
    """

    name: str
    root: Path
    preprocessing: str | None
    corruption: tuple[str, str, int] | None = None

    @property
    def folder(self) -> Path:
        """Return the folder of the class folders."""
        if self.corruption is None:
            return self.root / "imagenet" / "val"
        kind, corruption, severity = self.corruption
        return self.root / _IMAGENET[kind] / corruption / str(severity)

    @cached_property
    def _lists(self) -> tuple[list[str], dict[str, int]]:
        return imagenet_lists()

    def info(self) -> DatasetInfo:
        """Return the description from RobustBench's list; the files must exist and are hashed."""
        ids, classes = self._lists
        files = {i: self.folder / i for i in ids}
        missing = [path for path in files.values() if not path.is_file()]
        if missing:
            more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
            raise UserError(f"{missing[0]} is missing{more}; put the images into {self.folder}/<class>/<image>.JPEG")
        folders = {d.name for d in self.folder.iterdir() if d.is_dir()}
        if folders != set(classes):  # RobustBench numbers classes by the folders present
            odd = sorted(folders ^ set(classes))[0]
            raise UserError(f"{self.folder} must have the {len(classes):,} class folders and no other; see {odd}")
        side = PREPROCESSINGS[self.preprocessing] if self.preprocessing else None
        shape = (3, side, side) if side else self._pictures.shape
        return DatasetInfo(self.name, len(classes), shape, revision_of(files), {"test": len(ids)})

    def load(self, split: str) -> tuple[Pictures[Image], I64]:
        """Return images and labels."""
        return self._pictures, self.labels(split)

    @cached_property
    def _pictures(self) -> Pictures[Image]:
        """The pictures, with RobustBench's preprocessing."""
        ids, _ = self._lists
        files = [self.folder / i for i in ids]
        stamps = [stamp_of(path) for path in files]
        prepare = _import_data().PREPROCESSINGS[self.preprocessing]

        def convert(_: str, picture: Image) -> F32:
            x: F32 = prepare(picture.convert("RGB")).numpy()
            return x

        def picture(i: int) -> tuple[str, Image]:
            return str(files[i]), open_picture(files[i], stamps[i])

        return Pictures(len(ids), picture, convert, remedy="unpack the original again")

    def labels(self, split: str) -> I64:
        """Return labels, from RobustBench's list."""
        import numpy as np

        ids, classes = self._lists
        return np.array([classes[i.partition("/")[0]] for i in ids], dtype=np.int64)


def imagenet_lists() -> tuple[list[str], dict[str, int]]:
    """Return RobustBench's images of ImageNet in their order, as "class/file", and the number of every class."""
    package = package_folder("robustbench")
    if package is None:
        raise UserError("robustbench is not installed; pip install robustbench")
    helper = package / "helper_files"
    ids = (helper / "imagenet_test_image_ids.txt").read_text(encoding="utf-8").split()
    return ids, json.loads((helper / "imagenet_class_to_id_map.json").read_text(encoding="utf-8"))


def _mapped(path: Path, rank: int) -> np.memmap[Any, Any]:
    """Return the array of a .npy, which stays in the file."""
    import numpy as np

    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError):
        raise UserError(f"{path} is truncated or no .npy file; unpack the original again") from None
    if array.ndim != rank or (rank == 4 and (array.dtype != np.uint8 or not array.flags.c_contiguous)):
        raise UserError(f"{path} holds {array.dtype} {list(array.shape)}; unpack the original again")
    mapped: np.memmap[Any, Any] = array
    return mapped


def _import_data() -> Any:
    try:
        from robustbench import data
    except ImportError as error:
        raise UserError(f"robustbench cannot be imported ({error}); install purebench's dependencies anew") from None
    return data
