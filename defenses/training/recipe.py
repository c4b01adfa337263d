"""Recipes: the sections [recipes.<data set>] of a card, read with a user's overrides put in."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from defenses.catalogue import card, list_models
from defenses.errors import UserError, unknown
from defenses.training.loop import Phase
from defenses.training.objective import settings_of
from defenses.training.schedules import check_schedule

_KEYS = {"about", "unit", "batch", "validate_every", "network", "phases", "objective", "deploy"}


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Args:
        method: the training method.
        dataset: the data set.
        kind: the network's kind.
        network_args: the network's arguments that the data do not decide.
        batch: images a step.
        unit: "steps" or "epochs", what phases and `validate_every` count in.
        validate_every: how often validation images are looked at.
        phases: the optimizer's phases, in `unit`.
        objective: settings of the method.
        deploy: parameters of the defense, chosen on validation images.
    """

    method: str
    dataset: str
    kind: str
    network_args: dict[str, Any]
    batch: int
    unit: str
    validate_every: int
    phases: tuple[Phase, ...]
    objective: dict[str, Any]
    deploy: dict[str, Any]

    def in_steps(self, per_epoch: int) -> tuple[tuple[Phase, ...], int]:
        """(phases, validate_every) counted in steps."""
        scale = per_epoch if self.unit == "epochs" else 1
        phases = tuple(Phase(**{**vars(p), "until": p.until * scale}) for p in self.phases)
        return phases, self.validate_every * scale

    def fingerprint(self, seed: int) -> str:
        """Identity of the training: everything but the deployment parameters, and the seed."""
        content = {**vars(self), "phases": [p.described() for p in self.phases], "seed": seed}
        del content["deploy"]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def methods() -> list[str]:
    """The names of all defenses that have a recipe."""
    return [name for name in list_models() if card(name).trainer]


def load_recipe(method: str, dataset: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe of a method for a data set.

    Args:
        method: one of `methods()`.
        dataset: name of the data set.
        overrides: values by dotted key, as {"batch": 64, "network.args.hidden": 512}; {"recipe": "mnist"} starts from
            the recipe of another data set.

    Raises:
        UserError: no such recipe or key.
    """
    changes = dict(overrides or {})
    if method not in methods():
        raise unknown("recipe", method, methods())
    recipes = card(method).recipes
    base = str(changes.pop("recipe", dataset))
    if base not in recipes:
        raise UserError(
            f'no recipe of "{method}" for "{base}"; known: {", ".join(sorted(recipes))}; '
            'start from one of these by the override recipe, as {"recipe": "mnist"}'
        )
    table = copy.deepcopy(dict(recipes[base]))
    if changes.get("network.kind", table["network"]["kind"]) != table["network"]["kind"]:
        table["network"] = {"args": {}}  # the recipe's arguments are those of its own kind
    for key, value in changes.items():
        _put(table, key, value)
    for key in table:
        if key not in _KEYS:
            raise unknown("recipe key", key, _KEYS)
    if table["unit"] not in ("steps", "epochs"):
        raise UserError(f'recipe: unit is "{table["unit"]}"; it must be "steps" or "epochs"')
    return Recipe(
        method=method,
        dataset=dataset,
        kind=table["network"]["kind"],
        network_args=table["network"].get("args", {}),
        batch=table["batch"],
        unit=table["unit"],
        validate_every=table["validate_every"],
        phases=_phases(table["phases"]),
        objective=table.get("objective", {}),
        deploy=table.get("deploy", {}),
    )


def _phases(tables: list[dict[str, Any]]) -> tuple[Phase, ...]:
    phases = tuple(settings_of(Phase, t) for t in tables)
    for phase in phases:
        check_schedule(phase.schedule)
    ends = [0, *(p.until for p in phases)]
    if not phases or any(b <= a for a, b in itertools.pairwise(ends)):
        raise UserError("recipe: phases must be given, each ending after the one before")
    return phases


def _put(table: dict[str, Any], key: str, value: Any) -> None:
    at, parts = table, key.split(".")
    for part in parts[:-1]:
        if not isinstance(at.get(part), dict):
            raise unknown("recipe key", key, _dotted(table))
        at = at[part]
    at[parts[-1]] = value


def _dotted(table: Mapping[str, Any], prefix: str = "") -> list[str]:
    names = []
    for key, value in table.items():
        names += _dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [f"{prefix}{key}"]
    return names
