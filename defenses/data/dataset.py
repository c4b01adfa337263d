"""Data sets by name, in a fixed order. Nothing is downloaded, but by the library `datasets` for `hf:` names.

Checkpoints and thresholds are chosen on `validation`; only `test` is attacked. The splits are disjoint:

- digits: scikit-learn's 1,797 images of 8x8, put in a fixed order (`digits_order`): 1,000 train, 297 validation,
  500 test. It is the test part of UCI's optdigits; the writers are unknown, so splits share writers.
- mnist, fashion-mnist, cifar10, cifar100, svhn: test is the official test part in its official order; validation the
  last 5,000 images of the official training part, train the rest.
- a folder or a set of the hub with train and without validation: `defenses.data.sources.base.hold_out` of its train.
- RobustBench's sets are test; a corrupted set (`defenses.data.sources.corrupted`) has no train.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from defenses.data.sources.base import split_name
from defenses.data.sources.published import NAMES, digits_order
from defenses.data.sources.registry import FORMS, DatasetInfo, clean_name, find_source
from defenses.utils.errors import UserError, unknown
from defenses.utils.paths import data_root

if TYPE_CHECKING:
    from torch import Tensor

    from defenses.data.indexed import IndexedImages

__all__ = ["FORMS", "NAMES", "Dataset", "DatasetInfo", "data_root", "dataset_info", "digits_order", "labels_of"]
__all__ += ["clean_name", "load_dataset"]

_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Dataset:
    """Split of a data set, in its fixed order.

    Args:
        name: of the data set.
        split: "train", "validation" or "test".
        x: all images, float32 [N, C, H, W] in [0, 1]; or images by position, which are decoded when they are asked for,
            and all of them by `x`.
        y: labels, int64 [N].
        num_classes: K.
        revision: version of the data and of its splits and order.
    """

    name: str
    split: str
    x: Tensor
    y: Tensor
    num_classes: int
    revision: str

    def __init__(
        self, name: str, split: str, x: Tensor | IndexedImages, y: Tensor, num_classes: int, revision: str
    ) -> None:
        of_images = {"indexed" if hasattr(x, "at") else "x": x}
        vars(self).update(name=name, split=split, y=y, num_classes=num_classes, revision=revision, **of_images)

    if not TYPE_CHECKING:  # mypy would take any attribute for one

        def __getattr__(self, name: str) -> Tensor:
            """Return all images as `x`, which then stay in memory."""
            if name != "x" or "indexed" not in vars(self):
                raise AttributeError(f"a Dataset has no {name}")
            vars(self)["x"] = x = self.images(range(len(self)))
            return x

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        """Return the name, the split, the shape of the images and the number of classes."""
        return f"Dataset({self.name!r}, {self.split!r}, x={[len(self), *self.shape]}, num_classes={self.num_classes})"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (C, H, W)."""
        if self._indexed is not None:
            return self._indexed.shape
        channels, height, width = self.x.shape[1:]
        return channels, height, width

    @property
    def _indexed(self) -> IndexedImages | None:
        """The images by position; None of a data set that was made of a tensor."""
        return vars(self).get("indexed")

    def images(self, positions: Sequence[int] | Tensor) -> Tensor:
        """Return the images at some positions, in the order given; no other is decoded.

        Returns:
            float32 [B, C, H, W] in [0, 1].

        Raises:
            UnreadableImage: one cannot be decoded.
            UserError: a file has changed, or an image is none of the data set's shape and range.
        """
        import torch

        at = positions if isinstance(positions, range) else torch.as_tensor(positions, dtype=torch.int64).tolist()
        indexed = None if "x" in vars(self) else self._indexed
        return self.x[list(at)] if indexed is None else torch.from_numpy(indexed.at(at))

    def first(self, count: int, positions: Sequence[int] | None = None) -> Tensor:
        """Return the first images at some positions, or of all, that can be decoded, [at most count, C, H, W].

        Raises:
            UnreadableImage: none can be decoded.
        """
        import torch

        from defenses.data.pictures import UnreadableImage

        among = range(len(self)) if positions is None else positions
        try:
            return self.images(among[:count])
        except UnreadableImage as error:
            unreadable = error
        found: list[Tensor] = []
        for i in among:
            with suppress(UnreadableImage):
                found.append(self.images([i]))
            if len(found) == count:
                break
        if not found:
            raise unreadable
        return torch.cat(found)

    def sha(self, i: int) -> str:
        """Return the identity of image i: sha256 of label (int64) and pixels (float32, CHW), little-endian, in hex."""
        return sha_of(self.images([i])[0], self.y[i])

    @cached_property
    def shas(self) -> tuple[str, ...]:
        """Return `sha` of every image, computed at the first call."""
        return tuple(self.sha(i) for i in range(len(self)))

    def select(self, positions: Sequence[int] | Tensor) -> Dataset:
        """Return the images at some positions, in the order given."""
        import torch

        from defenses.data.indexed import SelectedImages

        at = torch.as_tensor(positions, dtype=torch.int64)
        x = self.x[at] if self._indexed is None else SelectedImages(self._indexed, at.tolist())
        return Dataset(self.name, self.split, x, self.y[at], self.num_classes, self.revision)


def sha_of(image: Tensor, label: Tensor) -> str:
    """Return the identity of an image: see `Dataset.sha`.

    Args:
        image: float32 [C, H, W].
        label: int64, a scalar.
    """
    pixels = image.cpu().contiguous().numpy()
    return hashlib.sha256(label.cpu().numpy().astype("<i8").tobytes() + pixels.astype("<f4").tobytes()).hexdigest()


def dataset_info(name: str, *, root: str | Path | None = None) -> DatasetInfo:
    """Return the shape, classes, revision and splits of a data set, if possible without its images or torch.

    Args:
        name: as in `load_dataset`.
        root: folder of data sets, where relative paths are looked for after the current folder; see `data_root`.

    Raises:
        UserError: unknown name, or files that are missing or damaged.
    """
    return find_source(name, data_root(root)).info()


def labels_of(name: str, split: str, *, root: str | Path | None = None) -> list[int]:
    """Return the labels of a split, in its order, without torch and if possible without the images.

    Args:
        name: as in `load_dataset`.
        split: a split of the data set.
        root: folder of data sets; see `data_root`.

    Raises:
        UserError: as `load_dataset`.
    """
    labels: list[int] = find_source(name, data_root(root)).labels(split_name(split)).tolist()
    return labels


def load_dataset(name: str, split: str = "test", *, root: str | Path | None = None) -> Dataset:
    """Return a split of a data set, in its fixed order; images are decoded when they are used.

    Args:
        name: one of

            - "digits", "mnist", "fashion-mnist", "cifar10", "cifar100", "svhn".
            - the path of an .npz with arrays x (or images) and y (or labels), which is a test split, or with x_train,
              y_train, x_validation... Images are uint8 or floats in [0, 1]; without an array `num_classes` the labels
              tell the number of classes.
            - "folder:path", with class/picture.png or split/class/picture.png in it (train, val or validation, test),
              as torchvision's ImageFolder; "?resize=256&crop=224" resizes the shorter side and crops the centre,
              "mode=L" reads grey pictures as one channel.
            - "cifar10-c/gaussian_noise/3", "cifar100-c/...", "imagenet-c/...", "imagenet-3dcc/..." and "imagenet" or
              "imagenet/Crop288", through RobustBench's loaders.
            - "corrupted:digits/contrast/3": a corruption of any of these, made by `defenses.data.corruptions`.
            - "hf:owner/name", "hf:owner/name:config@revision?image=img&label=fine_label", "hf:./folder": with the
              library `datasets`. Columns are chosen by their features; resize, crop and mode as for folders.
            - "file.py:function" or "package.module:function": function(split) returns (x, y), or a dict with x, y
              and num_classes, or None for a missing split. x is a numpy array or a tensor, uint8 or
              floats in [0, 1], [N, H, W], [N, C, H, W] or [N, H, W, C]; y whole numbers [N]. Instead of all images, x
              may be an object whose x[i] is image i, with a length and a text `revision` that stands for the images.
              `function.splits = ("test",)` lists the splits, so that it is not called for others. It is called more
              than once and must return the same images each time.
        split: "train", "validation" (also "valid", "val" or "dev") or "test".
        root: folder of data sets; see `data_root`.

    Raises:
        UserError: unknown name or split; a file is missing, damaged or not the published one; images outside [0, 1].
    """
    import torch

    split = split_name(split)
    if split not in _SPLITS:
        raise unknown("split", split, _SPLITS)
    source = find_source(name, data_root(root))
    info = source.info()
    if split not in info.splits:
        raise UserError(f"{name} has no {split} split (only {', '.join(info.splits)}); add it, or name another")
    indexed, y = source.load(split)
    return Dataset(name, split, indexed, torch.from_numpy(y), info.num_classes, info.revision)
