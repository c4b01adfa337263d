"""Keys of board files: kind, meaning and default of each; `bench/README.md` lists them. Nothing here imports torch."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, NamedTuple

from defenses.utils.errors import UserError, unknown
from defenses.utils.parameters import as_fraction, as_number


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and value.isprintable()


def _whole(value: Any) -> bool:
    return type(value) is int  # true and false are no numbers


def _number(value: Any) -> bool:
    return _text(value) or type(value) in (int, float)


def _between(value: Any, low: int, high: int) -> bool:
    number = as_number(value if isinstance(value, str) else repr(value)) if _number(value) else None
    return number is not None and low <= number <= high


def _list_of(one: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and bool(value) and all(map(one, value))


def _table(value: Any) -> bool:
    return isinstance(value, dict)


_Kind = tuple[Callable[[Any], bool], str]
_TEXT: _Kind = (_text, "a text of printable characters")
_FOLDER: _Kind = (
    lambda v: _text(v) and v == PurePath(v).name and not v.startswith(".") and "\\" not in v,
    "a text that can name a folder",
)
_MOST = 10_000_000  # more is a slip, and would not fit into memory
_COUNT: _Kind = (lambda v: _whole(v) and 1 <= v <= _MOST, f"a whole number, at least 1 and at most {_MOST:,}")
_COUNTS: _Kind = (
    lambda v: _list_of(lambda n: _whole(n) and 1 <= n <= _MOST)(v) and len({*v}) == len(v),
    "a list of whole numbers, each at least 1, without repeats, as [5, 15]",
)
_NAMES: _Kind = (_list_of(_text), 'a list of names, as ["none", "uniform"]')
_TIME: _Kind = (_number, 'seconds, or a text as "10min"')
_SEED: _Kind = (lambda v: _whole(v) and 0 <= v < 1 << 63, "a whole number, at least 0 and less than 2^63")
_SEEDS: _Kind = (
    lambda v: _list_of(lambda s: _whole(s) and s >= 0)(v) and len({*v}) == len(v),
    "a list of whole numbers, each at least 0, without repeats, as [0, 1, 2]",
)
_ERROR: _Kind = (lambda v: type(v) is float and 0 < v < 0.5, "a share above 0 and below 0.5, as 0.01")
_FLAG: _Kind = (lambda v: isinstance(v, bool), "true or false")
_TABLE: _Kind = (_table, "a table")
_VIEWS: _Kind = (_list_of(_table), "a list of tables, at least one, as [{ eot = 8 }]")
_LABELS: _Kind = (lambda v: _text(v) or _list_of(_text)(v), "a text or a list of texts")
_BUDGET: _Kind = (lambda v: v in ("full", "reduced"), '"full" or "reduced"')
_EPS: _Kind = (lambda v: _number(v) or _list_of(_number)(v), 'a number as "8/255" or a list of these, at least one')
_CLASS: _Kind = (lambda v: _whole(v) and v >= 0, "a class, as 0")
_SHARE: _Kind = (lambda v: _between(v, 0, 1), "a number in [0, 1]")
_SIZE: _Kind = (lambda v: _between(v, 0, 1) and as_fraction(v) > 0, 'a number in (0, 1], as "1/5"')
_RATIOS: _Kind = (
    lambda v: _list_of(_SIZE[0])(v) and len({as_fraction(r) for r in v}) == len(v),
    "a list of numbers in (0, 1], without repeats, as [0.1, 0.01]",
)


def _entries(what: str) -> _Kind:
    return _list_of(_table), f"at least one table headed [[{what}]]"


class Key(NamedTuple):
    """A key of a board.

    Args:
        kind: check of its value, and the words for such a value.
        about: what it sets.
        default: what holds without it, as TOML or in words; `REQUIRED`: it must be given.
    """

    kind: _Kind
    about: str
    default: str


REQUIRED = "required"
_DEFENSE = {
    "name": Key(_TEXT, "name of a defense, robustbench:ID, file.py:Class or package.module:Class", REQUIRED),
    "label": Key(_TEXT, "name in tables", "name"),
    "params": Key(_TABLE, "parameters of the defense and of what it is composed with", "{}"),
}
KEYS: dict[str, dict[str, Key]] = {
    "board": {
        "name": Key(_FOLDER, "name of the results folder", "file name without .toml"),
        "title": Key(_TEXT, "title of the tables", "file name without .toml"),
        "dataset": Key(_TEXT, "name or path of the data set (purebench ls datasets)", REQUIRED),
        "split": Key(_TEXT, "train, validation (also valid, val or dev) or test", '"test"'),
        "indices": Key(_TEXT, "images that are attacked (purebench ls indices)", '"all"'),
        "budget": Key(_BUDGET, "mark of short attacks, shown in tables; changes nothing that runs", '"full"'),
        "block": Key(_COUNT, "images of a cell: an attack sees a block as one batch, so it is part of the key", "100"),
        "threads": Key(_COUNT, "torch threads of each worker process", "1"),
        "time_limit": Key(_TIME, "time that a cell may take; run --time-limit goes before it", "no limit"),
        "seed": Key(_SEED, "seed of attacks and draws", "0"),
        "threat": Key(_TABLE, "threat model: norm and radius", "required, or of the preset"),
        "verdict": Key(_TABLE, "draws, and what is computed from them", "{}"),
        "defense": Key(_entries("defense"), "defenses, in the order of the tables", REQUIRED),
        "attack": Key(_entries("attack"), "attacks, in the order of the tables", "required without a preset or nulls"),
        "nulls": Key(
            _NAMES,
            "images without an attack on the defense: none, uniform and, if named, transfer",
            '["none", "uniform"]',
        ),
        "preset": Key(
            _TEXT, "published protocol that gives attacks, draws, nulls and budget (purebench ls presets)", "none"
        ),
    },
    "threat": {
        "norm": Key(_TEXT, "Linf, L2, L1 or L0 (number of pixels)", "required, or of the preset"),
        "eps": Key(_EPS, "radius on pixels in [0, 1]; a list gives tables for each", "required, or of the preset"),
        "targets": Key(
            _TEXT, "none (any wrong class), next (label + 1) or random (one other class an image)", '"none"'
        ),
        "knowledge": Key(_TEXT, "words for the table; what an attack differentiates is its view", '"white-box"'),
    },
    "verdict": {
        "draws": Key(_COUNT, "held-out draws of a stochastic defense, the ones that are counted; odd", "15"),
        "selection": Key(_COUNT, "further draws, on which the worst attack of an image is chosen", "8"),
        "batch": Key(_COUNT, "images times draws that go through a defense at once; changes no result", "2048"),
        "m": Key(_COUNTS, "submissions M of Rob(M)", "[5, 15], as far as there are draws"),
        "k": Key(_COUNT, "draws of the majority vote and of the mean logit; odd", "all draws"),
        "sequential": Key(_ERROR, "error of a sequential rule for a majority of k draws, more than `draws`", "no rule"),
    },
    "attack": {
        "name": Key(_TEXT, "name of an attack (purebench ls attacks), given:FILE or file.py:function", REQUIRED),
        "label": Key(_TEXT, "name in tables", "name"),
        "params": Key(_TABLE, "parameters, by the names of the library", "{}"),
        "views": Key(_VIEWS, "what the attack differentiates; each view is a row", "[{}]"),
        "on": Key(_LABELS, 'labels of defenses, "stochastic" or "deterministic"', "all defenses"),
        "source": Key(_TEXT, "label of the defense that the images are made on, to be judged on the others", "none"),
    },
    "view": {
        "gradient": Key(_TEXT, "gradient mode, some with a number, as smooth:1/100", '"exact"'),
        "eot": Key(_COUNT, "copies of the defense that are averaged in one call", "1"),
        "runs": Key(
            _COUNT, "runs that each copy combines; 1 puts the copies in the place of the runs", "the deployed runs"
        ),
        "output": Key(_TEXT, "logits (mean of the copies) or log-mean-prob (log of their mean softmax)", '"logits"'),
        "seed": Key(_TEXT, "fresh, or known: the attack meets the very draw on which it is judged", '"fresh"'),
    },
    "defense": {
        **_DEFENSE,
        "stochastic": Key(_FLAG, "for a module of your own: its output is random", "false"),
        "seeds": Key(_SEEDS, "seeds of trainings; rows are means over them", "one training"),
    },
    "poisoning": {
        "name": Key(_FOLDER, "name of the results folder", "file name without .toml"),
        "title": Key(_TEXT, "title of the tables", "file name without .toml"),
        "dataset": Key(_TEXT, "data set with train, validation and test images", REQUIRED),
        "seeds": Key(_SEEDS, "seeds of poisoning, training and purification", REQUIRED),
        "target": Key(_CLASS, "class that the trigger is to give", "0"),
        "threads": Key(_COUNT, "torch threads", "1"),
        "training": Key(_TABLE, "training of the victim", REQUIRED),
        "trigger": Key(_TABLE, "square in the bottom right corner", "{}"),
        "attack": Key(_entries("attack"), "attacks on training data; an unpoisoned control is always run", REQUIRED),
        "purifier": Key(_entries("purifier"), "purifiers of training data, test data and both", "none"),
    },
    "training": {
        "recipe": Key(_TEXT, "recipe of a classifier, as of purebench train", REQUIRED),
        "set": Key(_TABLE, "changes of the recipe", "{}"),
    },
    "trigger": {
        "size": Key(_COUNT, "side in pixels", "3"),
        "value": Key(_SHARE, "value of its pixels; 1 is white", "1"),
    },
    "poison": {
        "name": Key(_TEXT, "badnets or clean-label", REQUIRED),
        "ratios": Key(_RATIOS, "poisoned share: badnets of all images, clean-label of the target's class", REQUIRED),
        "against": Key(_TEXT, "clean-label: weights of the network that images are perturbed on", '"undefended"'),
        "eps": Key(_SIZE, "clean-label: Linf radius", '"1/5"'),
        "step": Key(_SIZE, "clean-label: step size", '"1/20"'),
        "iterations": Key(_COUNT, "clean-label: number of steps", "20"),
    },
    "purifier": _DEFENSE,
}
_PLACES = {"board": "the board", "poisoning": "the board", "poison": "[attack]"}


def check(what: str, table: Any) -> dict[str, Any]:
    """Return a table of a board that has only keys that exist, each with a value of its kind.

    Args:
        what: "board" (the top level), "threat", "verdict", "view", "attack" or "defense"; of a poisoning board
            "poisoning" (the top level), "training", "trigger", "poison" or "purifier".
        table: as TOML gives it.

    Raises:
        UserError: an unknown key, or a value of another kind.
    """
    place = _PLACES.get(what, f"[{what}]")
    if not isinstance(table, dict):
        raise UserError(f"{place} must be a table, not {table!r}")
    for key, value in table.items():
        if key not in KEYS[what]:
            if header := _header_above(what, key):
                raise UserError(f"{key} stands in {place}; it is a key of the board: move `{key}` above {header}")
            raise unknown(f"key in {place}", key, KEYS[what])
        fits, kind = KEYS[what][key].kind
        if not fits(value):
            raise UserError(f"{key} in {place} is {_short(value)}; it must be {kind}")
    return table


def _header_above(what: str, key: str) -> str:
    """Return the header below which a key of the top level has got into a table; "" for another key."""
    top = "poisoning" if what in ("training", "trigger", "poison", "purifier") else "board"
    if what in (top, "view") or key not in KEYS[top]:
        return ""
    name = {"poison": "attack"}.get(what, what)
    return f"the first [[{name}]]" if name in ("attack", "defense", "purifier") else f"[{name}]"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


_UNITS = {"": 1, "s": 1, "min": 60, "h": 3600}


def duration(text: str | float) -> float:
    """Return the seconds of 600, "600", "90 s", "10min" or "1.5h".

    Raises:
        UserError: it is none of these, or not positive.
    """
    match = re.fullmatch(r"([0-9.]+(?:e[+-]?[0-9]+)?)\s*([a-z]*)", str(text).strip().lower())
    try:
        value = float(match[1]) * _UNITS[match[2]] if match else 0.0
    except (KeyError, ValueError):
        value = 0.0
    if not (0 < value < math.inf):
        raise UserError(f'the time limit is {text!r}; write seconds, or "10min" or "2h"')
    return value
