"""Keys of board files: kind, meaning and default of each; `bench/README.md` lists them. Nothing here imports torch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import make_dataclass
from pathlib import PurePath
from typing import Annotated, Any, NamedTuple

from bench.attacks.registry import find_attack
from bench.board.duration import duration
from bench.board.presets import find_preset
from bench.board.views import check_nulls
from bench.spec.threat import ThreatModel
from bench.spec.view import ViewSpec
from defenses.utils.json_values import Json
from defenses.utils.parameters import as_fraction, as_number
from defenses.utils.precision import Precision
from defenses.utils.validation import Flag, Kind, Loc, validated


def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value) and value.isprintable()


def _number(value: object) -> bool:
    return _text(value) or type(value) in (int, float)


def _in_0_1(value: object) -> bool:
    number = as_number(value if isinstance(value, str) else repr(value)) if _number(value) else None
    return number is not None and 0 <= number <= 1


def _list_of(test: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and bool(value) and all(map(test, value))


def _distinct(values: list[object]) -> bool:
    return 0 < len(values) == len({*values})


def _taken_by(check: Callable[[Any], Any]) -> Kind:
    """Return the kind of the values that a function does not refuse."""
    return Kind(make=lambda value: (check(value), value)[1])


def _check_threats(table: Json) -> None:
    for eps in table["eps"] if isinstance(table["eps"], list) else [table["eps"]]:
        ThreatModel(**{**table, "eps": eps})


_HEADED = "at least one table headed"
_MOST = 10_000_000  # more is a slip, and would not fit into memory
_TEXT = Annotated[str, Kind("a text of printable characters", _text)]
_FOLDER = Annotated[
    str,
    Kind(
        "a text that can name a folder", lambda v: v == PurePath(v).name and v[0] != "." and "\\" not in v and _text(v)
    ),
]
_COUNT = Annotated[int, Kind(f"a whole number, at least 1 and at most {_MOST:,}", lambda v: 1 <= v <= _MOST)]
_COUNTS = Annotated[
    list[_COUNT], Kind("a list of whole numbers, each at least 1, without repeats, as [5, 15]", _distinct)
]
_NAMES = Annotated[list[_TEXT], Kind('a list of names, as ["none", "uniform"]', bool)]
_TIME = Annotated[Any, Kind('seconds, or a text as "10min"', _number), _taken_by(duration)]
_SEED = Annotated[int, Kind("a whole number, at least 0 and less than 2^63", lambda v: 0 <= v < 1 << 63)]
_CLASS = Annotated[int, Kind("a class, as 0", lambda v: v >= 0)]
_SEEDS = Annotated[
    list[_CLASS], Kind("a list of whole numbers, each at least 0, without repeats, as [0, 1, 2]", _distinct)
]
_PRECISION = Annotated[Precision, Kind('"float32", "tf32" or "bf16"')]
_ERROR = Annotated[float, Kind("a share above 0 and below 0.5, as 0.01", lambda v: 0 < v < 0.5)]
_TABLE = Annotated[Json, Kind("a table")]
_LABELS = Annotated[Any, Kind("a text or a list of texts", lambda v: _text(v) or _list_of(_text)(v))]
_BUDGET = Annotated[str, Kind('"full" or "reduced"', lambda v: v in ("full", "reduced"))]
_EPS = Annotated[
    Any, Kind('a number as "8/255" or a list of these, at least one', lambda v: _number(v) or _list_of(_number)(v))
]
_SHARE = Annotated[Any, Kind("a number in [0, 1]", _in_0_1)]
_SIZE = Annotated[Any, Kind('a number in (0, 1], as "1/5"', lambda v: _in_0_1(v) and as_fraction(v) > 0)]
_RATIOS = Annotated[
    list[_SIZE],
    Kind("a list of numbers in (0, 1], without repeats, as [0.1, 0.01]", lambda v: _distinct([*map(as_fraction, v)])),
]


class Key(NamedTuple):
    """A key of a board.

    Args:
        kind: annotation of its value.
        about: what it sets.
        default: what holds without it, as TOML or in words; `REQUIRED`, or words that begin so: it must be given.
    """

    kind: Any
    about: str
    default: str


@functools.cache
def _table(what: str, check: Callable[[object], object] = lambda _: None) -> object:
    """Return the annotation of a table of `KEYS`, a dataclass for pydantic, and of a function that refuses values."""
    fields = [(n, k.kind, *(() if k.default.startswith(REQUIRED) else (None,))) for n, k in KEYS[what].items()]
    kind = make_dataclass(what, fields, kw_only=True)
    return Annotated[kind, _taken_by(lambda v: check({key: x for key, x in vars(v).items() if x is not None}))]


def _tables(kind: Any, words: str) -> Any:
    return Annotated[list[kind], Kind(words, bool)]


REQUIRED = "required"
KEYS: dict[str, dict[str, Key]] = {}
KEYS["purifier"] = {
    "name": Key(_TEXT, "name of a defense, robustbench:ID, file.py:Class or package.module:Class", REQUIRED),
    "label": Key(_TEXT, "name in tables", "name"),
    "params": Key(_TABLE, "parameters of the defense and of what it is composed with", "{}"),
}
KEYS["view"] = {
    "gradient": Key(_TEXT, "gradient mode, some with a number, as smooth:1/100", '"exact"'),
    "eot": Key(_COUNT, "copies of the defense that are averaged in one call", "1"),
    "runs": Key(
        _COUNT, "runs that each copy combines; 1 puts the copies in the place of the runs", "the deployed runs"
    ),
    "output": Key(_TEXT, "logits (mean of the copies) or log-mean-prob (log of their mean softmax)", '"logits"'),
    "seed": Key(_TEXT, "fresh, or known: the attack meets the very draw on which it is judged", '"fresh"'),
}
KEYS["attack"] = {
    "name": Key(_TEXT, "name of an attack (purebench ls attacks), given:FILE or file.py:function", REQUIRED),
    "label": Key(_TEXT, "name in tables", "name"),
    "params": Key(_TABLE, "parameters, by the names of the library", "{}"),
    "views": Key(
        _tables(_table("view", lambda v: ViewSpec(**v)), "a list of tables, at least one, as [{ eot = 8 }]"),
        "what the attack differentiates; each view is a row; with a random source, one view of that",
        "[{}]",
    ),
    "on": Key(_LABELS, 'labels of defenses, "stochastic" or "deterministic"', "all defenses"),
    "source": Key(_TEXT, "label of the defense that the images are made on, to be judged on the others", "none"),
}
KEYS["threat"] = {
    "norm": Key(_TEXT, "Linf, L2, L1 or L0 (number of pixels)", "required, or of the preset"),
    "eps": Key(_EPS, "radius on pixels in [0, 1]; a list gives tables for each", "required, or of the preset"),
    "targets": Key(_TEXT, "none (any wrong class), next (label + 1) or random (one other class an image)", '"none"'),
    "knowledge": Key(_TEXT, "words for the table; what an attack differentiates is its view", '"white-box"'),
}
KEYS["verdict"] = {
    "draws": Key(_COUNT, "held-out draws of a stochastic defense, the ones that are counted; odd", "15"),
    "selection": Key(_COUNT, "further draws, on which the worst attack of an image is chosen", "8"),
    "batch": Key(_COUNT, "images times draws that go through a defense at once; changes no result", "2048"),
    "m": Key(_COUNTS, "submissions M of Rob(M)", "[5, 15], as far as there are draws"),
    "k": Key(_COUNT, "draws of the majority vote and of the mean logit; odd", "all draws"),
    "sequential": Key(_ERROR, "error of a sequential rule for a majority of k draws, more than `draws`", "no rule"),
}
KEYS["compute"] = {
    "precision": Key(
        _PRECISION, "float32; tf32 multiplies matrices in TF32; bf16 is autocast to bfloat16", '"float32"'
    ),
    "channels_last": Key(Flag, "weights of convolutions and features in the order NHWC", "false"),
}
KEYS["defense"] = {
    **KEYS["purifier"],
    "stochastic": Key(Flag, "for a module of your own: its output is random", "false"),
    "seeds": Key(_SEEDS, "seeds of trainings; rows are means over them", "one training"),
}
_PRESET = Annotated[_TEXT, _taken_by(find_preset)]
KEYS["protocol"] = {"preset": Key(_PRESET, "name (purebench ls presets)", REQUIRED), "on": KEYS["attack"]["on"]}
KEYS["board"] = {
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
    "threat": Key(_table("threat", _check_threats), "threat model: norm and radius", "required, or of the preset"),
    "verdict": Key(_table("verdict"), "draws, and what is computed from them", "{}"),
    "compute": Key(_table("compute"), "arithmetic of the attacks' search; verdicts are in float32", "{}"),
    "defense": Key(
        _tables(_table("defense"), f"{_HEADED} [[defense]]"), "defenses, in the order of the tables", REQUIRED
    ),
    "attack": Key(
        _tables(_table("attack", lambda v: find_attack(v["name"], v.get("params"))), f"{_HEADED} [[attack]]"),
        "attacks, in the order of the tables",
        "required without a preset, protocol or nulls",
    ),
    "protocol": Key(
        _tables(_table("protocol"), f"{_HEADED} [[protocol]]"), "presets, for their attacks beside each other", "none"
    ),
    "nulls": Key(
        Annotated[_NAMES, _taken_by(check_nulls)],
        "images without an attack on the defense: none, uniform and, if named, transfer",
        '["none", "uniform"]',
    ),
    "preset": Key(_PRESET, "published protocol of attacks, draws, nulls and budget (purebench ls presets)", "none"),
}
KEYS["training"] = {
    "recipe": Key(_TEXT, "recipe of a classifier, as of purebench train", REQUIRED),
    "set": Key(_TABLE, "changes of the recipe", "{}"),
}
KEYS["trigger"] = {
    "size": Key(_COUNT, "side in pixels", "3"),
    "value": Key(_SHARE, "value of its pixels; 1 is white", "1"),
}
KEYS["poison"] = {
    "name": Key(_TEXT, "badnets or clean-label", REQUIRED),
    "ratios": Key(_RATIOS, "poisoned share: badnets of all images, clean-label of the target's class", REQUIRED),
    "against": Key(_TEXT, "clean-label: weights of the network that images are perturbed on", '"undefended"'),
    "eps": Key(_SIZE, "clean-label: Linf radius", '"1/5"'),
    "step": Key(_SIZE, "clean-label: step size", '"1/20"'),
    "iterations": Key(_COUNT, "clean-label: number of steps", "20"),
}
KEYS["poisoning"] = {
    "name": Key(_FOLDER, "name of the results folder", "file name without .toml"),
    "title": Key(_TEXT, "title of the tables", "file name without .toml"),
    "dataset": Key(_TEXT, "data set with train, validation and test images", REQUIRED),
    "seeds": Key(_SEEDS, "seeds of poisoning, training and purification", REQUIRED),
    "target": Key(_CLASS, "class that the trigger is to give", "0"),
    "threads": Key(_COUNT, "torch threads", "1"),
    "training": Key(_table("training"), "training of the victim", REQUIRED),
    "trigger": Key(_table("trigger"), "square in the bottom right corner", "{}"),
    "attack": Key(
        _tables(_table("poison"), f"{_HEADED} [[attack]]"),
        "attacks on training data; an unpoisoned control is always run",
        REQUIRED,
    ),
    "purifier": Key(
        _tables(_table("purifier"), f"{_HEADED} [[purifier]]"), "purifiers of training data, test data and both", "none"
    ),
}
_REMEDIES = {
    ("dataset",): 'write dataset = "digits"',
    ("threat",): 'write [threat] with norm = "Linf" and eps = "8/255" (or a list)',
    ("threat", "norm"): 'write norm = "Linf"',
    ("threat", "eps"): 'write eps = "8/255" (or a list)',
    ("defense",): 'write a table [[defense]] with name = "adp"',
    ("defense", "name"): 'write name = "adp"',
    ("attack",): 'write a table [[attack]] with name = "autoattack:apgd-ce"',
    ("attack", "name"): 'write name = "autoattack:apgd-ce"',
    ("protocol", "preset"): 'write preset = "standard"',
    ("purifier", "name"): 'write name = "adp"',
    ("seeds",): "write seeds = [0]",
    ("training",): 'write [training] with recipe = "undefended"',
    ("training", "recipe"): 'write recipe = "undefended"',
    ("attack", "ratios"): "write ratios = [0.1, 0.01]",
}


def check(what: str, table: Any, *, partial: bool = False) -> Json:
    """Return a table of a board, which has all keys it needs and no unknown ones, each with a value of its kind.

    Args:
        what: of `KEYS`; tables inside are checked with it.
        table: as TOML gives it.
        partial: keys may be missing.

    Raises:
        UserError: all unknown and missing keys and all values of another kind, a line for each.
    """
    top = "the board" if what in ("board", "poisoning") else f"[{what}]"

    def name(loc: Loc) -> tuple[str, str]:
        at = [step + 1 if isinstance(step, int) else step for step in loc]
        places = top, "[{0}]", "[[{0}]] {1}", "", "{2} {3} of [[{0}]] {1}"
        place = places[max(len(at) - 1, 0)].format(*at)
        return (str(loc[-1]), f" in {place}") if loc else (place, "")

    def optional(loc: Loc) -> bool:
        return partial or (loc == ("attack",) and not {"nulls", "protocol"}.isdisjoint(table))

    def misplaced(loc: Loc) -> str:
        outer, key = loc[0], str(loc[-1])
        if what not in ("board", "poisoning") or len(loc) not in (2, 3) or key not in KEYS[what]:
            return ""
        header = f"the first [[{outer}]]" if len(loc) == 3 else f"[{outer}]"
        return f"{key} stands{name(loc)[1]}; it is a key of the board: move `{key}` above {header}"

    remedies = _REMEDIES | ({("attack", "name"): 'write name = "badnets"'} if what == "poisoning" else {})
    validated(_table(what), table, name=name, remedies=remedies, optional=optional, misplaced=misplaced)
    return dict(table)
