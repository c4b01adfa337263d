"""Images and labels in memory as a data set: a file in the user's cache, named by its content."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np

from defenses.data.formats import as_images, as_labels
from defenses.utils.errors import UserError
from defenses.utils.files import make_folder, write_whole
from defenses.utils.paths import cache_folder


def saved_arrays(dataset: Any, num_classes: int | None) -> str:
    """Return the path of an .npz with images and labels.

    Args:
        dataset: (x, y), tensors or NumPy arrays: images as in an .npz (`defenses.data.load_dataset`), labels [N].
        num_classes: K of the model; None: the highest label plus one.

    Raises:
        UserError: no pair, or arrays that are no images and labels.
    """
    if len(dataset) != 2:
        raise UserError(f"the data set is a {type(dataset).__name__} of {len(dataset)}; give (x, y), or a name")
    x, y = (as_array(part) for part in dataset)
    images, labels = as_images(x, "x"), as_labels(y, "y")
    if len(images) != len(labels) or not len(labels):
        raise UserError(f"there are {len(images)} images and {len(labels)} labels; give one label per image")
    if num_classes is not None and labels.max() >= num_classes:
        classes = f"{num_classes} classes, 0 to {num_classes - 1}"
        raise UserError(f"y has the label {labels.max()}, but the model has {classes}")
    content: dict[str, Any] = {"x": images, "y": labels, "layout": "NCHW"}
    if num_classes is not None:
        content["num_classes"] = np.array(num_classes)
    buffer = io.BytesIO()
    np.savez(buffer, **content)
    digest = hashlib.sha256(repr((images.shape, num_classes)).encode())
    for part in (images, labels):
        digest.update(np.ascontiguousarray(part).tobytes())
    path = cache_folder() / "arrays" / f"arrays-{digest.hexdigest()[:12]}.npz"
    if not path.is_file():
        make_folder(path.parent)
        write_whole(path, buffer.getvalue(), "give the path of an .npz instead")
    return str(path)


def as_array(values: Any) -> Any:
    """Return a tensor, array or list as a NumPy array."""
    if not hasattr(values, "detach"):
        return np.asarray(values)
    tensor = values.detach().cpu()
    return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()  # NumPy has no bfloat16
