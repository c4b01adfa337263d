"""Read files of precomputed adversarial images, without executing anything in them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.spec.cell import NULLS
from bench.store.parts import ADVERSARIAL, CELLS, RECORDS, read_lines, read_whole
from defenses.data.arrays import as_array
from defenses.data.formats import as_labels, to_nchw, whole_numbers
from defenses.utils.errors import UserError

FORMS = (".npz", ".npy", ".pt", ".pth", ".safetensors")
_IMAGES = ("x_adv", "x", "adv_complete", "images")  # AutoAttack's script saves adv_complete
_ALIASES = {"labels": "y", "indices": "index"}
_ROUNDING = 1e-6  # as `bench.spec.threat.in_box`


@dataclass(frozen=True, eq=False)
class PrecomputedImages:
    """The precomputed adversarial images of one attack.

    Args:
        label: for tables.
        source: the file, for messages.
        x: float32 [N, C, H, W] in [0, 1].
        index: positions in the data set, int64 [N], each once; None: not in the file.
        y: labels, int64 [N]; None: not in the file.
        notes: of conversions of the file's values.
    """

    label: str
    source: str
    x: npt.NDArray[np.float32]
    index: npt.NDArray[np.int64] | None = None
    y: npt.NDArray[np.int64] | None = None
    notes: tuple[str, ...] = ()


def read_precomputed(path: Path, threat: str | None = None) -> list[PrecomputedImages]:
    """Read the images of a file.

    Args:
        path: an .npz, .pt (or .pth) or .safetensors with an array x_adv (or x), uint8 or floats in [0, 1], and
            optionally index (positions in the split) and y (labels); an .npy or .pt with the images alone; or the
            adversarial.safetensors of a part of a results folder, which holds the images of several attacks.
        threat: norm and eps, as "Linf 1/5", of the attacks to read from a part; None: all.

    Returns:
        The images of each attack: one, except of a part.

    Raises:
        UserError: missing, damaged, pickled objects, or not such images.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; give a file of adversarial images ({', '.join(FORMS)})")
    if path.name == ADVERSARIAL and (path.parent / CELLS).is_file():
        return _from_part(path.parent, threat)
    readers: dict[str, Callable[[Path], object]] = {
        ".npz": _npz,
        ".npy": lambda p: np.load(p, allow_pickle=False),
        ".pt": _torch,
        ".pth": _torch,
        ".safetensors": _safetensors,
    }
    if path.suffix not in readers:
        raise UserError(f"{path} is no file of adversarial images; save them as {', '.join(FORMS)}")
    try:
        content = readers[path.suffix](path)
    except Exception as error:  # a damaged archive or pickle may raise any type
        raise UserError(
            f"{path} is damaged, or holds more than plain arrays ({type(error).__name__}); save it again, as "
            "numpy.savez does"
        ) from None
    return [_from_arrays(path, content if isinstance(content, Mapping) else {"x_adv": content})]


def _npz(path: Path) -> dict[str, object]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _torch(path: Path) -> object:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the pickle's protocol
        content = torch.load(path, map_location="cpu", weights_only=True)
    values = content if isinstance(content, Mapping) else {"x_adv": content}
    return {k: v.detach().numpy() for k, v in values.items() if isinstance(v, torch.Tensor)}


def _safetensors(path: Path) -> dict[str, object]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(str(path)))
    except SafetensorError as error:
        raise ValueError(str(error)) from None


def given_images(arrays: object, label: str) -> PrecomputedImages:
    """Return images in memory; arrays as of a file (x_adv, index, y), or the images alone.

    Args:
        arrays: a tensor, a NumPy array, or a mapping of these by name.
        label: for tables and messages.

    Raises:
        UserError: not such images.
    """
    named = arrays if isinstance(arrays, Mapping) else {"x_adv": arrays}
    return _from_arrays(Path(label), {key: as_array(value) for key, value in named.items()})


def _from_arrays(path: Path, arrays: Mapping[str, object]) -> PrecomputedImages:
    """Return the images of a file's arrays; refuse arrays without images, and positions or labels that do not fit."""
    name = next((n for n in _IMAGES if n in arrays), None)
    if name is None:
        raise UserError(f"{path} holds {', '.join(map(str, arrays)) or 'no array'}; name its images x_adv")
    clean = ("x", "images") if name == "x_adv" else ()
    arrays = {_ALIASES.get(key, key): value for key, value in arrays.items()}
    if others := sorted(map(str, arrays.keys() - {name, "index", "y", *clean})):
        raise UserError(
            f"{path} holds {', '.join(others)} beside {name}; name the adversarial images x_adv, their positions index "
            "and their labels y, and leave the rest out"
        )
    x, notes = _images(np.asarray(arrays[name]), f"{path}: {name}")
    index = whole_numbers(np.asarray(arrays["index"]), f"{path}: index", "positions") if "index" in arrays else None
    y = as_labels(np.asarray(arrays["y"]), f"{path}: y") if "y" in arrays else None
    if index is not None and len(index) and index.min() < 0:
        raise UserError(f"{path}: index has image {index.min()}; positions count from 0, none is negative")
    for key, values in (("index", index), ("y", y)):
        if values is not None and len(values) != len(x):
            raise UserError(f"{path} has {len(x)} images and {len(values)} values in {key}; give one for each image")
    if index is not None and len(set(index.tolist())) < len(index):
        values, counts = np.unique(index, return_counts=True)
        raise UserError(f"{path}: index has image {values[counts > 1][0]} more than once; give each image once")
    return PrecomputedImages(path.stem if path.suffix in FORMS else path.name, str(path), x, index, y, notes)


def _images(x: npt.NDArray[Any], name: str) -> tuple[npt.NDArray[np.float32], tuple[str, ...]]:
    """Return (images as float32 [N, C, H, W], notes); floats may leave [0, 1] by rounding."""
    if x.dtype != np.uint8 and x.dtype.kind != "f":
        raise UserError(f"{name} is {x.dtype}; store uint8 (0 to 255) or floats in [0, 1]")
    chw, last = to_nchw(x.shape, name)
    if not len(x):
        raise UserError(f"{name} holds no image")
    if last:
        x = x.transpose(0, 3, 1, 2)
    images = np.ascontiguousarray(x.reshape(-1, *chw), dtype=np.float32)
    if x.dtype == np.uint8:
        return images / np.float32(255), (f"{name} is uint8: divided by 255",)
    if not np.isfinite(images).all():
        raise UserError(f"{name} has values that are not finite; leave such images out, and name the others in index")
    low, high = float(images.min()), float(images.max())
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise UserError(f"{name} runs from {low:g} to {high:g}; images must lie in [0, 1]: scale, or store uint8")
    return images, ()


def _from_part(part: Path, threat: str | None) -> list[PrecomputedImages]:
    """Return the images of all attacks of a part of a results folder, without the null attacks."""
    import pyarrow.parquet as pq
    from safetensors.numpy import load

    try:
        lines = read_lines(part)
        images = load(read_whole(part, ADVERSARIAL))
        records = pq.read_table(io.BytesIO(read_whole(part, RECORDS)), columns=["cell", "index", "label"]).to_pandas()
    except ValueError as problem:
        raise UserError(f"{part}: {problem}; run its board again") from None
    by_cell = dict(iter(records.groupby("cell", observed=True)))
    groups: dict[str, list[str]] = {}
    for line in lines:
        at = f"{line['norm']} {line['eps']}"
        if line["attack"] not in NULLS and line["key"] in images and threat in (None, at):
            where = "" if threat else f", {at}"
            label = f"{line['attack']} on {line['defense']} ({line['view']}{where})"
            groups.setdefault(label, []).append(line["key"])
    if not groups:
        raise UserError(f"{part} holds no images of an attack{f' at {threat}' if threat else ''}")
    return [
        PrecomputedImages(
            label,
            f"{part.name}: {label}",
            _images(np.concatenate([images[k] for k in keys]), f"{part.name}: {label}")[0],
            np.concatenate([by_cell[k]["index"].to_numpy(np.int64) for k in keys]),
            np.concatenate([by_cell[k]["label"].to_numpy(np.int64) for k in keys]),
        )
        for label, keys in groups.items()
    ]
