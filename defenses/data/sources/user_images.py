"""Images that a user's object gives one by one."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from defenses.data.arrays import as_array
from defenses.data.formats import Layout, check_range, storage_of
from defenses.data.pictures import Pictures, UnreadableImage
from defenses.utils.arrays import F32
from defenses.utils.errors import UserError
from defenses.utils.plugins import forbid_exit, line_of


def user_images(images: Any, name: str, layout: Layout | None) -> Pictures[npt.NDArray[Any]]:
    """Return the images of an object with `len` and an index, read when they are asked for.

    Args:
        images: images[i] is image i, uint8 or floats in [0, 1], [H, W], [C, H, W] or [H, W, C].
        name: of the object, for messages.
        layout: of images of three axes, see `defenses.data.formats.to_nchw`.
    """

    def image(i: int) -> tuple[str, npt.NDArray[Any]]:
        title = f"{name}[{i}]"
        try:
            with forbid_exit():
                return title, as_array(images[i])
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            raise UnreadableImage(f"{title} cannot be read ({line_of(error)[:160]}); mend the image") from error

    def convert(title: str, stored: npt.NDArray[Any]) -> F32:
        storage = storage_of((1, *stored.shape), stored.dtype, title, layout)
        check_range(stored.dtype, stored.min(), stored.max(), title)
        converted: F32 = storage.to_float(stored[None])[0]
        return converted

    return Pictures(len(images), image, convert, remedy="give images of one shape")


def revision_of_user(images: Any, name: str) -> str | None:
    """Return the revision of an object that gives images by index; None of arrays, and of objects without one.

    Args:
        images: what the user's function returned.
        name: of the object, for the message.

    Raises:
        UserError: the revision is no text.
    """
    revision = None if hasattr(images, "__array__") else getattr(images, "revision", None)
    if revision is None or not (hasattr(images, "__getitem__") and hasattr(images, "__len__")):
        return None
    if not isinstance(revision, str) or not revision:
        raise UserError(
            f"{name}.revision is {revision!r}; it must be a text that is another when the images are others"
        )
    return revision
