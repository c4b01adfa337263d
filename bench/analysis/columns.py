"""The columns of frames as data: dtype, unit and meaning."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NotRequired, TypedDict, cast

from defenses.utils.errors import unknown

if TYPE_CHECKING:
    import pandas as pd

_FILE = Path(__file__).with_name("columns.toml")
_ENDS = {"_low": "lower", "_high": "upper"}


class Column(NamedTuple):
    """A column of a frame.

    Args:
        frame: function of `bench` that returns the frame.
        name: of the column.
        dtype: as pandas writes it.
        unit: "" for text, flags and numbers without one; "share" is in [0, 1].
        meaning: one line.
        always: False if the column is there only where it has something to say.
    """

    frame: str
    name: str
    dtype: str
    unit: str
    meaning: str
    always: bool


@cache
def frames() -> dict[str, str]:
    """Return what a row of each frame is, by the function that returns it."""
    return {name: str(of["about"]) for name, of in _read()["frames"].items()}


@cache
def columns_of(frame: str = "") -> tuple[Column, ...]:
    """Return the columns of a frame, in order; "": those of all frames.

    Args:
        frame: a function of `bench`, as "load_results".

    Raises:
        UserError: no such frame.
    """
    known = frames()
    if frame and frame not in known:
        raise unknown("frame", frame, known)
    return tuple(column for name in ([frame] if frame else known) for column in _of_frame(name))


def columns(frame: str = "") -> pd.DataFrame:
    """Return the columns of a frame of `bench` as a frame.

    Args:
        frame: a function, as "load_results"; "": all that are described.

    Returns:
        A row per column: `frame`, `name`, `dtype`, `unit`, `meaning`: str; `always`: bool, False if the column is there
        only where it has something to say.

    Raises:
        UserError: no such frame.
    """
    import pandas as pd

    return pd.DataFrame(columns_of(frame), columns=list(Column._fields))


def _of_frame(frame: str) -> list[Column]:
    shared, of = _read()["columns"], _read()["frames"][frame]
    known = {**shared, **of.get("own", {})}
    found = []
    for names, always in ((of["columns"], True), (of.get("some", ""), False)):
        for name in names.split():
            dtype, unit, meaning = known.get(name) or _end(name, known, of.get("interval", ""))
            found.append(Column(frame, name, dtype, unit, meaning, always))
    return found


def _end(name: str, known: dict[str, list[str]], interval: str) -> list[str]:
    """Return what the end of an interval is."""
    base, _, end = name.rpartition("_")
    of = next(column for column in (f"{base}_mean", base) if column in known)
    return ["float64", known[of][1], f"{_ENDS[f'_{end}']} end of the interval of `{of}` ({interval})"]


class _Frame(TypedDict):
    about: str
    columns: str
    interval: NotRequired[str]
    some: NotRequired[str]
    own: NotRequired[dict[str, list[str]]]


class _File(TypedDict):
    columns: dict[str, list[str]]
    frames: dict[str, _Frame]


@cache
def _read() -> _File:
    content: Any = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    return cast(_File, content)
