"""Validate tables of TOML or JSON by pydantic, which is imported for the first of them; all faults are told at once."""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

from defenses.utils.errors import UserError, unknown
from defenses.utils.parameters import as_number

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, TypeAdapter
    from pydantic_core import CoreSchema, ErrorDetails

_OWN_WORDS = ("refused", "literal_error")  # types of errors whose words say more than those of a list around them
Loc = tuple[int | str, ...]  # keys and positions that lead to a value
Name = Callable[[Loc], tuple[str, str]]  # to the name of a value in messages and its place, as ("eps", " in [threat]")


@dataclass(frozen=True)
class Kind:
    """A kind of values, as the metadata of an annotation.

    Args:
        words: for messages, after "it must be".
        test: of a value of the annotated type.
        read: conversion in place of pydantic's for the type; raises a ValueError.
        make: from a valid value to the one that is returned; its `UserError` is a fault of the value.
    """

    words: str = ""
    test: Callable[[Any], bool] = lambda _: True
    read: Callable[[Any], Any] | None = None
    make: Callable[[Any], Any] = lambda value: value

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return pydantic's schema of the kind; faults of keys inside a value keep their own words."""
        from pydantic_core import PydanticCustomError, ValidationError, core_schema

        def validate(value: object, inner: Callable[[object], object]) -> object:
            try:
                value = inner(value)
                if self.test(value):
                    return self.make(value)
            except UserError as error:
                raise PydanticCustomError("refused", "{words}", {"words": str(error)}) from None
            except ValidationError as error:
                inside = error.errors(include_url=False)
                if not self.words or any(e["type"] in _OWN_WORDS or str in map(type, e["loc"]) for e in inside):
                    raise
            raise PydanticCustomError("kind", "{words}", {"words": self.words})

        schema: Any = core_schema.no_info_plain_validator_function(self.read) if self.read else handler(source)
        if schema["type"] in ("bool", "int", "float", "str", "list", "dict"):
            schema["strict"] = True  # no conversions, as of 1 to true
        return core_schema.no_info_wrap_validator_function(validate, schema)


def number(value: Any) -> int | float:
    """Return a finite number, also from a text; int and float stay apart: 1 and 1.0 differ in a recipe's identity."""
    if isinstance(value, str) and (spelt := as_number(value)) is not None:
        try:
            value = int(spelt) if spelt.denominator == 1 else float(spelt)
        except OverflowError:
            raise ValueError from None
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError
    return value  # type: ignore[no-any-return]


def _whole(value: object) -> int:
    if type(value := number(value)) is not int:
        raise ValueError
    return value


Flag = Annotated[bool, Kind("true or false")]
Count = Annotated[int, Kind("a whole number, at least 1", lambda v: v >= 1, _whole)]
Counts = Annotated[Sequence[Count], Kind("a list, each a whole number, at least 1")]
Whole = Annotated[int, Kind("a whole number, at least 0", lambda v: v >= 0, _whole)]
Number = Annotated[float, Kind("a number", read=number)]
Numbers = Annotated[Sequence[Number], Kind("a list, each a number")]
Positive = Annotated[float, Kind("a number above 0", lambda v: v > 0, number)]
NotNegative = Annotated[float, Kind("a number, at least 0", lambda v: v >= 0, number)]
Share = Annotated[float, Kind("a number in [0, 1]", lambda v: 0 <= v <= 1, number)]
PartShare = Annotated[float, Kind("a number, at least 0 and below 1", lambda v: 0 <= v < 1, number)]
Radius = Annotated[float, Kind('a number above 0 and at most 1, as 0.2 or "1/5"', lambda v: 0 < v <= 1, number)]
Names = Annotated[Sequence[str], Kind('a list of texts, at least one, as ["undefended"]', bool)]

_WORDS = {"string": "a text", "dict": "a table", "mapping": "a table", "dataclass": "a table"}


def under(prefix: str = "") -> Name:
    """Return the `name` of `validated` for dotted keys under a prefix, as "objective.eps"."""
    return lambda loc: (".".join(map(str, (prefix, *loc) if prefix else loc)), "")


def validated(
    kind: Any,
    value: Any,
    *,
    name: Name | None = None,
    remedies: Mapping[tuple[str, ...], str] | None = None,
    optional: Callable[[Loc], bool] = lambda _: False,
    misplaced: Callable[[Loc], str] = lambda _: "",
) -> Any:
    """Return a value of an annotation: of a dataclass an instance, made from a dict.

    Args:
        kind: the annotation; `Kind` may stand in it, at any depth.
        value: from TOML, JSON or Python.
        name: of values in messages; None: dotted keys.
        remedies: of missing keys, by the keys that lead to them.
        optional: True for keys that may be missing; if one is, the value itself is returned.
        misplaced: message on an unknown key that belongs elsewhere; "" for another one.

    Raises:
        UserError: a fault in each line: an unknown or missing key, or a value of another kind.
    """
    from pydantic import ValidationError

    try:
        return _adapter(kind).validate_python([value])[0]
    except ValidationError as error:
        listed = error.errors(include_url=False)
        found = [e for e in listed if not (e["type"] == "missing" and optional(e["loc"][1:]))]
    if faults := [fault for e in found for fault in _faults(e, kind, name or under(), remedies or {}, misplaced)]:
        raise UserError(*faults)
    return value


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, TypeAdapter

    # A list, since pydantic takes no configuration beside a dataclass itself.
    return TypeAdapter(list[kind], config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))


def _faults(
    error: ErrorDetails,
    kind: object,
    name: Name,
    remedies: Mapping[tuple[str, ...], str],
    misplaced: Callable[[Loc], str],
) -> Iterator[str]:
    """Yield the texts of a fault that pydantic has found."""
    loc, value, context = error["loc"][1:], error["input"], error.get("ctx", {})
    subject, place = name(loc)
    if error["type"] == "missing":
        yield f"{subject}{place} is missing; {remedies.get(tuple(s for s in loc if isinstance(s, str)), 'give it')}"
    elif error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        table = subject.rpartition(".")[0]
        yield misplaced(loc) or str(
            unknown(f"key{place or (table and f' of {table}')}", str(loc[-1]), _keys(kind, loc))
        )
    elif error["type"] == "refused":
        table = name((*loc, ""))[1].removeprefix(" in ") if is_dataclass(value) or isinstance(value, dict) else ""
        yield from (f"{table}: {line}" if table else line for line in context["words"].splitlines())
    else:
        words = context.get("words") or _WORDS.get(error["type"].partition("_")[0], "a list")
        if error["type"] == "literal_error":
            words = context["expected"].replace("'", '"')
            near = difflib.get_close_matches(str(value), words.split('"')[1::2], 1, 0.5)
            words += f"; did you mean {near[0]}?" if near else ""
        yield f"{subject}{place} is {short(value)}; it must be {words}"


def _keys(kind: object, loc: Loc) -> list[str]:
    """Return the keys of the table with an unknown one."""
    kind = getattr(kind, "__origin__", kind)  # of Annotated
    for step in loc[:-1]:
        kind = get_type_hints(kind)[step] if isinstance(step, str) else get_args(kind)[0]
    return list(get_type_hints(kind))


def short(value: object) -> str:
    """Return a value for messages, cut at 60 characters; texts but numbers stand in double quotes, as in TOML."""
    text = repr(value)
    if isinstance(value, str):
        text = f'"{value}"' if as_number(value) is None else value
    return text if len(text) <= 60 else f"{text[:57]}..."
