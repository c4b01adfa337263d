"""Name the columns of frames that users get: none shadows an attribute of pandas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.spec.threat import exact

if TYPE_CHECKING:
    import pandas as pd

_RENAMED = {"index": "image", "rank": "strict_rank"}  # `frame.index` and `frame.rank` are pandas'


def public(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame with the names of today, and with the radius as a number, `eps_value`, beside its text.

    Args:
        frame: columns as they are stored, or as earlier versions named them: `index` for `image`, `rank` for
            `strict_rank`. A frame that has the names of today is returned as it is.

    Returns:
        The frame, in which `eps_value` is float64, the radius on pixels in [0, 1]; NaN without one.
    """
    old = {was: name for was, name in _RENAMED.items() if was in frame and name not in frame}
    frame = frame.rename(columns=old) if old else frame
    if "eps" not in frame or "eps_value" in frame:
        return frame
    values = {text: float(exact(text)) if text else float("nan") for text in frame["eps"].unique()}
    names = list(frame)
    names.insert(names.index("eps") + 1, "eps_value")
    frame = frame.assign(eps_value=frame["eps"].map(values).astype("float64"))
    return frame[names]


def stored(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame of `public` with the position of an image under its stored name, `index`."""
    return frame.rename(columns={"image": "index"}) if "image" in frame else frame
