"""The columns of frames as data: dtype, unit and meaning; `glossary` has them."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from functools import cache
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NotRequired, TypedDict, TypeVar, cast

from defenses.utils.errors import unknown

if TYPE_CHECKING:
    import pandas as pd

_FILES = [Path(__file__).with_name("glossary") / f"{name}.toml" for name in ("results", "evidence", "questions")]
_ENDS = {"_low": "lower", "_high": "upper"}
_F = TypeVar("_F", bound=Callable[..., Any])


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
    contents: Any = [tomllib.loads(file.read_text(encoding="utf-8")) for file in _FILES]
    frames = {name: frame for content in contents for name, frame in content["frames"].items()}
    return cast(_File, {"columns": contents[0]["columns"], "frames": frames})


def with_columns(function: _F) -> _F:
    """Return a function with the columns of its frame in its docstring, instead of the command that shows them.

    Args:
        function: of `frames`; its docstring says "Columns: those of `purebench columns <its name>`."
    """
    name = function.__name__
    listed = [f"`{c.name}` ({', '.join(filter(None, (c.dtype, c.unit)))}): {c.meaning}" for c in columns_of(name)]
    if function.__doc__:  # there is none under python -OO
        command = f"Columns: those of `purebench columns {name}`."
        text = "".join(["Columns:", *(f"\n    - {line}" for line in listed)])
        function.__doc__ = cleandoc(function.__doc__).replace(command, text)
    return function


@with_columns
def columns(frame: str = "") -> pd.DataFrame:
    """Return the columns of a frame of `bench` as a frame.

    Args:
        frame: a function, as "load_results"; "": all that are described.

    Returns:
        A row per column. Columns: those of `purebench columns columns`.

    Raises:
        UserError: no such frame.
    """
    import pandas as pd

    return pd.DataFrame(columns_of(frame), columns=list(Column._fields))
