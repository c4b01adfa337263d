"""The image sizes that Square cannot start on in L2 and L1, in AutoAttack and in torchattacks."""

from __future__ import annotations

from bench.attacks.base import Unsupported


def check_tiles(name: str, norm: str, height: int, width: int) -> None:
    """Refuse images that the tiles of the first pattern do not fit, as of 12x8 and 14x14 pixels.

    Args:
        name: of the attack, for the message.
        norm: of the threat; in Linf there are no tiles.
        height: of the images, in pixels.
        width: of the images, in pixels.

    Raises:
        Unsupported: the library would fail on them.
    """
    if norm == "Linf":
        return
    side = height // 5  # as the libraries compute it
    start = (height - 5 * side) // 2
    fit = side > 0 and all(start + n // side * side <= n for n in (height, width))
    if side != 1 and not fit:  # a tile of one pixel that lies outside is dropped
        raise Unsupported(f"{name} needs images that its tiles fit (except in Linf), these are {height}x{width}")
