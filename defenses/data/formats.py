"""Readers of published files (idx, pickles of CIFAR, .mat of SVHN) and checks of arrays of images and labels."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from numpy._core.multiarray import _reconstruct

from defenses.data.indexed import Storage, StoredImages
from defenses.utils.arrays import I64, U8
from defenses.utils.errors import UserError
from defenses.utils.hints import hint

Layout = Literal["NCHW", "NHWC"]

_CHANNELS = (1, 3, 4)  # numbers of channels that are taken for such
_DIM = 0.4  # of white; images of a whole set rarely stay below


def read_bytes(path: Path, remedy: str) -> bytes:
    """Return the bytes of a file.

    Args:
        path: the file.
        remedy: advice in the message if it is missing.

    Raises:
        UserError: it is missing or unreadable.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {remedy}") from None
    except OSError as e:
        raise UserError(f"{path} cannot be read ({e.strerror}); {remedy}") from None


def read_idx(path: Path, checksum: str, remedy: str) -> U8:
    """Return the array of a gzipped idx file of unsigned bytes (LeCun's format, as MNIST).

    Args:
        path: the .gz file.
        checksum: sha256 of the decompressed contents (64 digits), or md5 of the file itself (32 digits).
        remedy: advice in the message if it is missing or damaged.

    Returns:
        uint8 [N] or [N, H, W].

    Raises:
        UserError: missing, truncated, not an idx file, or not the published one.
    """
    packed = read_bytes(path, remedy)
    try:
        raw = gzip.decompress(packed)
    except (EOFError, OSError, zlib.error):
        raise UserError(f"{path} is truncated or no gzip file; {remedy}") from None
    if len(raw) < 4 or raw[:3] != b"\0\0\x08" or len(raw) < 4 + 4 * raw[3]:
        raise UserError(f"{path} is no idx file of bytes (wrong magic number); {remedy}")
    shape = np.frombuffer(raw, ">u4", count=raw[3], offset=4)
    start, size = 4 + 4 * raw[3], int(np.prod(shape.astype(object)))
    if len(raw) - start != size:
        raise UserError(f"{path} holds {len(raw) - start} bytes where its header says {size}; {remedy}")
    if (_md5(packed) if len(checksum) == 32 else hashlib.sha256(raw).hexdigest()) != checksum:
        raise UserError(f"{path} is not the published file (its hash differs); {remedy}")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(tuple(int(n) for n in shape))


def _md5(raw: bytes) -> str:
    return hashlib.md5(raw, usedforsecurity=False).hexdigest()


def _published(path: Path, md5: str, remedy: str) -> bytes:
    """Return the bytes of a file with a published md5."""
    raw = read_bytes(path, remedy)
    if _md5(raw) != md5:
        raise UserError(f"{path} is truncated or not the published file (its md5 differs); {remedy}")
    return raw


class _ArraysOnly(pickle.Unpickler):
    """Unpickler of numpy arrays; refuses anything else."""

    def find_class(self, module: str, name: str) -> object:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _reconstruct
        if module == "numpy" and name in ("ndarray", "dtype"):
            return {"ndarray": np.ndarray, "dtype": np.dtype}[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def unpickle_arrays(raw: bytes, path: Path) -> Any:
    """Return a pickle (also of Python 2) of numbers, bytes, lists, dicts and numpy arrays; run no code.

    Args:
        raw: the pickle.
        path: its file, for the message.

    Raises:
        UserError: it is damaged, or names anything but arrays.
    """
    try:
        return _ArraysOnly(io.BytesIO(raw), encoding="bytes").load()
    except Exception as e:  # damaged pickles raise many types of errors
        reason = " ".join(str(e).split())[:120]
        raise UserError(f"{path} is no pickle of plain arrays ({reason}); put the original file there") from None


def read_cifar(path: Path, md5: str, remedy: str, labels: bytes = b"labels") -> tuple[U8, I64]:
    """Return the images and labels of one batch of CIFAR's Python version.

    Args:
        path: the pickle.
        md5: the published checksum.
        remedy: advice in the message if it is missing or damaged.
        labels: the key of the labels; CIFAR-100 has b"fine_labels".

    Returns:
        Images uint8 [N, 3, 32, 32], labels int64 [N].

    Raises:
        UserError: missing, or not the published file.
    """
    batch = unpickle_arrays(_published(path, md5, remedy), path)
    images = np.asarray(batch[b"data"], np.uint8).reshape(-1, 3, 32, 32)
    return images, np.asarray(batch[labels], np.int64)


def read_svhn(path: Path, md5: str, remedy: str) -> tuple[U8, I64]:
    """Return one part of SVHN (cropped digits, Netzer et al. 2011), whose label 10 means the digit 0.

    Args:
        path: the .mat file.
        md5: the published checksum.
        remedy: advice in the message if it is missing or damaged.

    Returns:
        Images uint8 [N, 3, 32, 32], labels int64 [N], 0 to 9.

    Raises:
        UserError: missing, or not the published file.
    """
    from scipy.io import loadmat

    content = loadmat(io.BytesIO(_published(path, md5, remedy)), variable_names=("X", "y"))
    labels = content["y"].astype(np.int64).reshape(-1)
    labels[labels == 10] = 0
    return np.transpose(content["X"], (3, 2, 0, 1)), labels


def layout_of(text: str, name: str) -> Layout:
    """Return a layout that a user states.

    Raises:
        UserError: it is neither "NCHW" nor "NHWC".
    """
    if text not in ("NCHW", "NHWC"):
        raise UserError(f'{name}: layout is "{text[:40]}"; it must be "NCHW" or "NHWC"')
    return "NCHW" if text == "NCHW" else "NHWC"


def to_nchw(shape: tuple[int, ...], name: str, layout: Layout | None = None) -> tuple[tuple[int, int, int], bool]:
    """Return the layout of images in an array of some shape.

    Args:
        shape: [N, H, W], [N, C, H, W] or [N, H, W, C].
        name: of the array, for the message.
        layout: of four axes; None: the channels are the axis of 1, 3 or 4 entries; where both have that many, the one
            that leaves square images.

    Returns:
        (C, H, W), and True if the channels are last.

    Raises:
        UserError: neither 3 nor 4 axes, no pixels, or a layout that the shape does not tell.
    """
    if len(shape) not in (3, 4) or 0 in shape[1:]:
        raise UserError(f"{name} has shape {list(shape)}; images must be [N, H, W], [N, C, H, W] or [N, H, W, C]")
    if len(shape) == 3:
        return (1, shape[1], shape[2]), False
    first, last = (n in _CHANNELS for n in (shape[1], shape[3]))
    if first and last:  # tiny images: those that are square
        first, last = shape[2] == shape[3], shape[1] == shape[2]
    if layout is None and first == last:
        raise UserError(f'{name} has shape {list(shape)}, which does not tell where the channels are; give layout = '
                        '"NCHW" or "NHWC" beside it')  # fmt: skip
    if layout == "NHWC" or (layout is None and last):
        return (shape[3], shape[1], shape[2]), True
    return (shape[1], shape[2], shape[3]), False


def as_labels(y: npt.NDArray[Any], name: str) -> I64:
    """Return labels as int64 [N], none negative.

    Args:
        y: whole numbers [N].
        name: of the array, for the message.

    Raises:
        UserError: they are of another type, shape or range.
    """
    numbers = whole_numbers(y, name, "labels")
    if numbers.size and numbers.min() < 0:
        raise UserError(f"{name} has a negative label; number the classes from 0")
    return numbers


def whole_numbers(values: npt.NDArray[Any], name: str, kind: str) -> I64:
    """Return whole numbers as int64 [N].

    Args:
        values: numbers [N].
        name: of the array, for the message.
        kind: noun of the numbers, for the message.

    Raises:
        UserError: they are of another type, shape or range.
    """
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise UserError(f"{name} is {values.dtype} {list(values.shape)}; {kind} must be whole numbers, [N]")
    return values.astype(np.int64)


def as_images(x: npt.NDArray[Any], name: str, layout: Layout | None = None) -> npt.NDArray[np.float32]:
    """Return images as float32 [N, C, H, W] in [0, 1]; a hint tells of values that hardly use their range.

    Args:
        x: uint8, or floats in [0, 1], in a layout of `to_nchw`.
        name: of the array, for the message.
        layout: see `to_nchw`.

    Raises:
        UserError: they are of another type, shape or range.
    """
    return stored_images(x, name, layout).at(range(len(x)))


def stored_images(x: npt.NDArray[Any], name: str, layout: Layout | None = None) -> StoredImages:
    """Return an array as images by position, which are made float32 when they are asked for; as `as_images`."""
    storage = storage_of(x.shape, x.dtype, name, layout)
    if x.size:
        check_range(x.dtype, x.min(), x.max(), name)
        tell_if_dark(x.dtype, x.max(), name)
    return StoredImages(x, storage)


def storage_of(shape: tuple[int, ...], dtype: np.dtype[Any], name: str, layout: Layout | None = None) -> Storage:
    """Return how an array stores images.

    Args:
        shape: see `to_nchw`.
        dtype: of its values.
        name: of the array, for the message.
        layout: see `to_nchw`.

    Raises:
        UserError: another shape, or neither uint8 nor floats.
    """
    chw, channels_last = to_nchw(shape, name, layout)
    if dtype != np.uint8 and dtype.kind != "f":
        raise UserError(f"{name} is {dtype}; store uint8 (0 to 255) or floats in [0, 1]")
    return Storage(chw, channels_last, 255 if dtype == np.uint8 else 1)


def check_range(dtype: np.dtype[Any], low: Any, high: Any, name: str) -> None:
    """Refuse floats outside [0, 1].

    Args:
        dtype: of the values.
        low: the least value.
        high: the highest value.
        name: of the array, for the message.

    Raises:
        UserError: they are outside, or NaN.
    """
    if dtype != np.uint8 and not (low >= 0 and high <= 1):  # the negation refuses NaN too
        text = f"{name} runs from {float(low):g} to {float(high):g}"
        raise UserError(f"{text}; images must lie in [0, 1]: scale, or store uint8")


def tell_if_dark(dtype: np.dtype[Any], highest: Any, name: str) -> None:
    """Hint at the images of a whole set that hardly use their range; `check_range` has the arguments."""
    if dtype == np.uint8 and highest < _DIM * 255:
        hint(f"{name} is uint8 up to {highest} and read as {highest}/255; if {highest} is white, store x / {highest}")
    elif dtype != np.uint8 and highest < _DIM:
        hint(f"{name} has no value above {highest:.3g}; if the images are not that dark, they were scaled twice")
