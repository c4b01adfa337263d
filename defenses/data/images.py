"""Image files as arrays: PIL decodes, torchvision resizes and crops."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from defenses.data.pictures import UnreadableImage
from defenses.data.stamps import Stamp, opened, stamp_of
from defenses.utils.errors import UserError, unknown
from defenses.utils.validation import Count, under, validated

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from defenses.utils.arrays import F32

OPTIONS = ("resize", "crop", "mode")
_CHANNELS = {"RGB": 3, "L": 1}
_DEEP = ("I;16", "I;16L", "I;16B", "I;16N")  # modes of PIL with 16 bits; its own conversion clips them at 255
GREY = ("L", "1", "LA", *_DEEP)  # modes of PIL


@dataclass(frozen=True)
class Preprocessing:
    """Conversion, resize and crop of every picture, in this order.

    Args:
        mode: "RGB", or "L" for grey.
        resize: pixels of the shorter side (bilinear, antialiased); None: no resize.
        crop: the central square of this many pixels; None: no crop.
    """

    mode: str
    resize: int | None = None
    crop: int | None = None

    @property
    def channels(self) -> int:
        """Return 3 or 1."""
        return _CHANNELS[self.mode]

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """Return (C, H, W) of the results; None where a picture must tell."""
        return (self.channels, self.crop, self.crop) if self.crop else None

    def convert(self, name: str, picture: Image) -> F32:
        """Return a picture as an array, as torchvision's ToTensor gives it.

        Args:
            name: for messages.
            picture: of any mode.

        Returns:
            float32 [C, H, W] in [0, 1].

        Raises:
            UserError: it is smaller than the crop, or has colours that mode "L" would lose.
        """
        import numpy as np

        self._check(name, picture)
        pixels = np.asarray(self._transform(in_bytes(picture, name)), np.uint8)
        x: F32 = pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1).astype(np.float32, order="C")
        x /= np.float32(255)
        return x

    @cached_property
    def _transform(self) -> Callable[[Image], Image]:
        """The function that converts, resizes and crops one picture."""
        if not self.resize and not self.crop:
            return lambda image: image.convert(self.mode)
        from torchvision.transforms import CenterCrop, Compose, Resize

        steps = ([Resize(self.resize)] if self.resize else []) + ([CenterCrop(self.crop)] if self.crop else [])
        chain = Compose(steps)
        return lambda image: chain(image.convert(self.mode))

    def _check(self, name: str, picture: Image) -> None:
        # torchvision pads pictures smaller than the crop with black.
        if self.crop and not self.resize and min(picture.size) < self.crop:
            raise UserError(
                f"{name} is {picture.width}x{picture.height} pixels, less than crop={self.crop}; add resize"
            )
        if self.mode == "L" and picture.mode not in GREY:
            raise UserError(f"{name} has colours ({picture.mode}), which mode=L would lose; write mode=RGB")


def parse(name: str, *more: str) -> tuple[str, dict[str, str]]:
    """Return a name without its options, and the options; those for pictures are checked.

    Args:
        name: "path?resize=256&crop=224&mode=L".
        more: other known options.

    Raises:
        UserError: an option is unknown, or its value is invalid.
    """
    head, options = split_options(name, (*OPTIONS, *more))
    sizes = [positive(name, options, key) for key in ("resize", "crop")]
    if options.get("mode", "RGB") not in _CHANNELS:
        raise unknown(f"mode of {head}", options["mode"], _CHANNELS)
    if sizes[0] and sizes[1] and sizes[1] > sizes[0]:
        raise UserError(f"{name}: crop {sizes[1]} is larger than resize {sizes[0]}; cut out at most what there is")
    return head, options


def preprocessing_of(options: dict[str, str], mode: str) -> Preprocessing:
    """Return the preprocessing that checked options describe, with `mode` as the default."""
    sizes = {key: int(options[key]) for key in ("resize", "crop") if key in options}
    return Preprocessing(options.get("mode", mode), **sizes)


@contextmanager
def decoding(name: str) -> Iterator[None]:
    """Turn the errors of decoding a picture into one line.

    Args:
        name: of the picture.

    Raises:
        UnreadableImage: it is no picture, or damaged.
    """
    from PIL import Image

    try:
        yield
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UnreadableImage(f"{name} is no readable picture ({reason}); mend or remove it") from None


def open_picture(path: Path | str, stamp: Stamp | None = None) -> Image:
    """Return a picture, decoded into memory.

    Args:
        path: its file.
        stamp: of the file when the data set was listed; None: taken now.

    Raises:
        UnreadableImage: the file is no picture, or damaged.
        UserError: it has changed since its stamp was taken.
    """
    from PIL import Image

    with opened(path, stamp or stamp_of(path)) as file, decoding(str(path)), Image.open(file) as image:
        image.load()
        return image


def in_bytes(picture: Image, name: str) -> Image:
    """Return a picture of at most 8 bits a value; 16 bits are scaled and rounded.

    Args:
        picture: of any mode.
        name: for the message.

    Raises:
        UserError: 32-bit values, whose white is not known.
    """
    import numpy as np
    from PIL import Image as pil

    if picture.mode in _DEEP:
        values = np.asarray(picture).astype(np.float64)
        return pil.fromarray(np.round(values / 257).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise UserError(
            f"{name} has values of 32 bits ({picture.mode}), whose white is not known; save it with 8 or 16"
        )
    return picture


def jpeg_round_trip(image: Tensor, quality: int) -> Tensor:
    """Return an image encoded and decoded by libjpeg; pixels are rounded to bytes first.

    Args:
        image: [C, H, W] in [0, 1], C 1 or 3.
        quality: 1 to 100.
    """
    import numpy as np
    import torch
    from PIL import Image

    pixels = (image * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).squeeze(2).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    with Image.open(file) as decoded:
        channels_last = torch.from_numpy(np.array(decoded)).view(*image.shape[1:], -1)
    return channels_last.permute(2, 0, 1).to(image.dtype) / 255


def split_options(name: str, choices: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Return the name and the options of "path?resize=256&crop=224".

    Raises:
        UserError: an option is unknown, given twice, or without a value.
    """
    head, _, tail = name.partition("?")
    options: dict[str, str] = {}
    for key, value in parse_qsl(tail, keep_blank_values=True):
        if key not in choices:
            raise unknown(f"option of {head}", key, choices)
        if key in options or not value:
            raise UserError(f"{name}: the option {key} must be given once, with a value")
        options[key] = value
    if tail and not options:
        raise UserError(f'{name}: "{tail}" is no option; write {choices[0]}=...')
    return head, options


def positive(name: str, options: Mapping[str, str], key: str) -> int | None:
    """Return an option as a whole number above 0; None if it is absent.

    Raises:
        UserError: it is no such number.
    """
    return validated(Count, options[key], name=under(f"{name}: {key}")) if key in options else None
