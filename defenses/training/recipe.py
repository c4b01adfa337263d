"""Recipes: the sections [recipes.<data set>] of cards, read with overrides."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from defenses.networks.registry import check_role, checked_args
from defenses.training.arithmetic import Arithmetic
from defenses.training.objective import settings_of
from defenses.training.phases import Phase
from defenses.utils.checksums import digest
from defenses.utils.errors import UserError, gathered, unknown
from defenses.utils.json_values import Json, JsonView
from defenses.utils.plugins import load_object
from defenses.utils.precision import Precision
from defenses.utils.validation import Count, Flag, Kind, Positive
from defenses.zoo.cards import card, list_models

_ARITHMETIC = ("precision", "channels_last", "compile")


@dataclass(frozen=True)
class _RecipeFile:
    """A recipe as written in TOML."""

    unit: Literal["steps", "epochs"]
    batch: Count
    validate_every: Count
    network: Any  # checked by itself: its arguments depend on its kind
    phases: Annotated[Sequence[Phase], Kind("a list, each a table")]
    objective: Any = None  # depends on the method
    deploy: JsonView = field(default_factory=dict)
    about: str = ""
    start: str = ""
    precision: Precision = "float32"
    channels_last: Flag = False
    compile: Flag = False
    time_limit: Positive | None = None
    half: Flag = False


@dataclass(frozen=True)
class _Network:
    kind: str
    args: JsonView = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """The recipe of a network's training.

    Args:
        method: the training method.
        dataset: the data set.
        kind: the network's kind.
        network_args: the network's arguments, without those that follow from the data.
        batch: images a step.
        unit: "steps" or "epochs", of phases and `validate_every`.
        validate_every: interval between validations, in `unit`.
        phases: the optimizer's phases, in `unit`.
        objective: settings of the method.
        deploy: parameters of the defense, chosen on validation images.
        start: name of the classifier's weights of the data set to start from; "": fresh weights.
        precision: see `Arithmetic`.
        channels_last: see `Arithmetic`.
        compile: see `Arithmetic`.
        time_limit: seconds; the schedule is stretched over the steps that fit (see `plan_that_fits`). None: no limit.
        half: store the weights as float16.
    """

    method: str
    dataset: str
    kind: str
    network_args: Json
    batch: int
    unit: str
    validate_every: int
    phases: tuple[Phase, ...]
    objective: Json
    deploy: Json
    start: str = ""
    precision: Precision = "float32"
    channels_last: Flag = False
    compile: Flag = False
    time_limit: float | None = None
    half: Flag = False

    @property
    def arithmetic(self) -> Arithmetic:
        """Return the arithmetic of the training."""
        return Arithmetic(self.precision, self.channels_last, self.compile)

    def described(self) -> dict[str, object]:
        """Return the recipe as it is stored beside weights: settings that have a default only where they differ."""
        defaults = {f.name: f.default for f in dataclasses.fields(self) if f.default is not dataclasses.MISSING}
        content = {n: v for n, v in vars(self).items() if n not in defaults or v != defaults[n]}
        return {**content, "phases": [p.described() for p in self.phases]}

    def in_steps(self, per_epoch: int) -> tuple[tuple[Phase, ...], int]:
        """Return (phases, validate_every) counted in steps."""
        scale = per_epoch if self.unit == "epochs" else 1
        phases = tuple(Phase(**{**vars(p), "until": p.until * scale}) for p in self.phases)
        return phases, self.validate_every * scale

    def fingerprint(self, seed: int) -> str:
        """Return the identity of the training: all but the deployment parameters, with the seed."""
        content = {**self.described(), "seed": seed}
        del content["deploy"]
        return digest(content, default=str)


def methods() -> list[str]:
    """Return the names of all defenses with a recipe."""
    return [name for name in list_models() if card(name).trainer]


def load_recipe(method: str, dataset: str, overrides: Mapping[str, object] | None = None) -> Recipe:
    """Return the recipe of a method for a data set.

    Args:
        method: one of `methods()`.
        dataset: name of the data set.
        overrides: values by dotted key, as {"batch": 64, "network.args.hidden": 512}; {"recipe": "mnist"} starts from
            the recipe of another data set, and "phases.0.lr" names a value of the first phase.

    Raises:
        UserError: unknown recipe or key, an invalid value, or a network of another role than the method trains.
    """
    changes = dict(overrides or {})
    if method not in methods():
        raise unknown("recipe", method, methods())
    recipes = card(method).recipes
    base = str(changes.pop("recipe", dataset))
    if base not in recipes:
        raise UserError(
            f'no recipe of "{method}" for "{base}"; known: {", ".join(sorted(recipes))}; '
            'start from one of these: --set recipe=mnist, in Python overrides={"recipe": "mnist"}'
        )
    table = {"objective": {}, **copy.deepcopy(dict(recipes[base]))}
    table["network"].setdefault("args", {})
    if changes.get("network.kind", table["network"]["kind"]) != table["network"]["kind"]:
        table["network"] = {"args": {}}  # the recipe's arguments belong to its kind
    gathered(lambda change: _put(table, *change), changes.items())
    return _checked(method, dataset, table)


def _checked(method: str, dataset: str, raw: JsonView) -> Recipe:
    objective = objective_of(method)

    def network() -> tuple[str, Json]:
        found = settings_of(_Network, raw["network"], "network")
        check_role(found.kind, objective.trains, f"recipe of {method}: network.kind is")
        return found.kind, checked_args(found.kind, found.args)

    parts: list[Callable[[], Any]] = [
        lambda: settings_of(_RecipeFile, raw, ""),
        lambda: settings_of(objective.table_type, raw["objective"]),
        network,
    ]
    table, settings, (kind, network_args) = gathered(lambda part: part(), parts)
    ends = [0, *(p.until for p in table.phases)]
    if len(ends) == 1 or any(b <= a for a, b in itertools.pairwise(ends)):
        raise UserError("recipe: phases must be given, each ending after the one before")
    return Recipe(
        method=method,
        dataset=dataset,
        kind=kind,
        network_args=network_args,
        batch=table.batch,
        unit=table.unit,
        validate_every=table.validate_every,
        phases=tuple(table.phases),
        objective={key: getattr(settings, key) for key in raw["objective"]},
        deploy=dict(table.deploy),
        **{name: getattr(table, name) for name in ("start", *_ARITHMETIC, "time_limit", "half")},
    )


def objective_of(method: str) -> type[Any]:
    """Return the `Objective` that trains a method's network: a class, from (network, material, seed, settings)."""
    objective: type[object] = load_object(card(method).trainer)
    return objective


def _put(table: dict[str, object], key: str, value: object) -> None:
    at, (*parts, last) = table, key.split(".")
    for part in parts:
        at = _entries(at).get(part)  # type: ignore[assignment]
    if not isinstance(at, dict):
        raise unknown("recipe key", key, _dotted(table))
    at[last] = value


def _entries(value: object) -> dict[str, object]:
    """Return what dotted keys reach: the entries of a table, and those of a list of tables by number."""
    if isinstance(value, list) and all(isinstance(v, dict) for v in value):
        return {str(i): v for i, v in enumerate(value)}
    return value if isinstance(value, dict) else {}


def _dotted(table: object, prefix: str = "") -> list[str]:
    names = []
    for key, value in _entries(table).items():
        names += _dotted(value, f"{prefix}{key}.") if _entries(value) else [f"{prefix}{key}"]
    return names
