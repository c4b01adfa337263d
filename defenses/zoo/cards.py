"""Cards: what is known of a registered defense without loading it. One TOML file each, no torch."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from defenses.utils.errors import UserError, unknown, with_context
from defenses.utils.parameters import COUNT, LIST, NUMBER, PART, TEXT, as_number, canonical, decode, is_kind, kind_of

_CARDS = Path(__file__).parents[1] / "cards"
Kind = Literal["classifier", "purifier", "detector"]
# Parameters of a composition, which every defense of a kind understands beside its own.
COMMON: Mapping[Kind, tuple[str, ...]] = {
    "classifier": ("filters", "detector", "runs", "combine", "suspected", "level"),
    "purifier": ("filters", "detector", "runs", "combine", "classifier", "suspected", "level"),
    "detector": ("filters", "classifier", "runs", "combine", "fpr"),
}
_COMMON_KINDS = {
    "filters": LIST,
    "detector": PART,
    "classifier": PART,
    "runs": COUNT,
    "combine": TEXT,
    "suspected": TEXT,
    "level": NUMBER,
    "fpr": NUMBER,
}
_ABSENT = ("filters", "detector", "level")  # None stands for leaving them out


@dataclass(frozen=True)
class Card:
    """What is known of a defense without loading it; one TOML file in `defenses/cards`.

    Args:
        name: its id.
        title: of the paper.
        authors: of the paper.
        venue: and year.
        url: of the paper.
        licence: of this implementation and its weights.
        summary: one line.
        kind: what it is by itself: "classifier", "purifier" (stands before one) or "detector" (stands beside one).
        stochastic: whether a prediction depends on noise, see `random`.
        gradients: the gradient modes an attack view may ask for, where nothing else is composed with it.
        build: "module:function", from networks and parameters to a `Classifier`, `Purifier` or `Detector`.
        weights: names of the networks it needs; "{key}" stands for a parameter.
        version: raised when the same parameters would give other outputs.
        noise_scale: the parameter that, when it is 0, takes the noise away; "" when none does.
        trainer: "module:class", the objective that trains its network; "" where nothing is trained.
        parameters: defaults, the published CIFAR-10 values. They tell what kind of values a parameter takes: 10 stands
            for whole numbers alone, 10.0 and "1/4" for any.
        optional: parameters that may be None too; the `build` chooses then.
        datasets: defaults for other data sets, over `parameters`.
        claims: published numbers, each with its source.
        recipes: how its network is trained, by data set (see `defenses.training.recipe`).
    """

    name: str
    title: str
    authors: str
    venue: str
    url: str
    licence: str
    summary: str
    kind: Kind
    stochastic: bool
    gradients: tuple[str, ...]
    build: str
    weights: tuple[str, ...]
    version: int
    noise_scale: str = ""
    trainer: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    datasets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    claims: tuple[Mapping[str, Any], ...] = ()
    recipes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def merged(self, dataset: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters for a data set, in canonical form; those of a composition where they are given.

        Raises:
            UserError: a parameter that the defense does not have, or a value of another kind than its default.
        """
        for key in given:
            if key not in self.parameters and key not in COMMON[self.kind]:
                raise unknown(f"parameter of {self.name}", key, [*self.parameters, *COMMON[self.kind]])
        values = {**self.parameters, **self.datasets.get(dataset, {}), **given}
        return {key: self._checked(key, value) for key, value in sorted(values.items())}

    def _checked(self, key: str, value: Any) -> Any:
        """A value in canonical form."""
        kind = _COMMON_KINDS[key] if key in COMMON[self.kind] else kind_of(self.parameters[key])
        try:
            found = canonical(value, key)
        except UserError as error:
            raise with_context(self.name, error) from None
        if is_kind(found, kind) or (found is None and key in (*_ABSENT, *self.optional)):
            return found
        is_number = isinstance(value, str) and as_number(value) is not None
        raise UserError(f"{self.name}: {key} is {value if is_number else repr(value)[:60]}; it must be {kind}")

    def random(self, merged: Mapping[str, Any]) -> bool:
        """Whether the defense by itself is stochastic with these parameters."""
        return self.stochastic and not (self.noise_scale and decode(merged[self.noise_scale]) == 0)

    def networks(self, merged: Mapping[str, Any]) -> list[str]:
        """The names of the weights that the defense by itself loads with these parameters."""
        return [name.format(**merged) for name in self.weights]


@functools.cache
def _cards() -> dict[str, Card]:
    cards = {}
    for path in sorted(_CARDS.glob("*.toml")):
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        for key in ("gradients", "weights", "optional", "claims"):
            raw[key] = tuple(raw.get(key, ()))
        cards[path.stem] = Card(name=path.stem, **raw)
    return cards


def list_models() -> list[str]:
    """The ids of all registered defenses."""
    return list(_cards())


def card(name: str) -> Card:
    """The card of a registered defense.

    Raises:
        UserError: there is none of that name.
    """
    if name not in _cards():
        raise unknown("defense", name, _cards())
    return _cards()[name]


def refuse_around(name: str, given: Mapping[str, Any]) -> None:
    """Refuse filters and detectors as parameters of a model that is named as the defense itself.

    Args:
        name: of the model.
        given: its parameters.

    Raises:
        UserError: there are some.
    """
    for key in ("filters", "detector"):
        if key in given:
            part = key.removesuffix("s")
            raise UserError(f'"{name}" takes no {key}; name the {part} as the defense, with classifier = "{name}"')
