"""Cards: descriptions of registered defenses, one TOML file each, read without torch."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from defenses.utils import validation as kinds
from defenses.utils.errors import UserError, gathered, unknown, with_context
from defenses.utils.json_values import JsonView
from defenses.utils.parameters import as_number, canonical, decode
from defenses.utils.validation import under, validated

_CARDS = Path(__file__).parents[1] / "cards"
_CLAIMS = Path(__file__).parents[2] / "leaderboards" / "claims"
Kind = Literal["classifier", "purifier", "detector"]
FAMILIES = ("adversarial training", "other classifiers", "purifiers", "filters", "detectors")
# Parameters of a composition, which all defenses of a kind take.
COMMON: Mapping[Kind, tuple[str, ...]] = {
    "classifier": ("filters", "detector", "runs", "combine", "suspected", "level"),
    "purifier": ("filters", "detector", "runs", "combine", "classifier", "suspected", "level", "autoencoder"),
    "detector": ("filters", "classifier", "runs", "combine", "fpr"),
}


def _is_name(value: object) -> bool:
    return isinstance(value, str) and as_number(value) is None and len(value) <= 200


LIST, TEXT = Annotated[list[Any], kinds.Kind("a list")], Annotated[str, kinds.Kind("a text", _is_name)]
_NAMED = 'a name, or a table as { name = "jpeg", quality = 50 }'
PART = Annotated[Any, kinds.Kind(_NAMED, lambda v: isinstance(v, Mapping) or _is_name(v))]
_COMMON_KINDS = {"filters": LIST, "detector": PART, "classifier": PART, "runs": kinds.Count, "combine": TEXT}
_COMMON_KINDS |= {"autoencoder": TEXT, "suspected": TEXT, "level": kinds.Number, "fpr": kinds.Number}
_CHECKPOINTS = (".pt", ".pth", ".ckpt", ".safetensors")
_ABSENT = ("filters", "detector", "level")  # may be None: left out


def kind_of(default: object) -> object:
    """Return the kind of a parameter's values from its default: 10 for whole numbers, 10.0 and "1/4" for any."""
    if isinstance(default, str) and as_number(default) is not None:
        return kinds.Number
    return {bool: kinds.Flag, int: kinds.Whole, float: kinds.Number, list: LIST}.get(type(default), TEXT)


@dataclass(frozen=True)
class Card:
    """Description of a registered defense; one TOML file in `defenses/cards`.

    Args:
        name: its id.
        title: of the paper.
        authors: of the paper.
        venue: and year.
        url: of the paper.
        licence: of this implementation and its weights.
        summary: one line.
        kind: of the defense by itself: "classifier", "purifier" (before one) or "detector" (beside one).
        stochastic: True if a prediction depends on noise, see `random`.
        gradients: the gradient modes of attack views on it, where nothing else is composed with it.
        network_gradients: further modes by the kind of its network.
        build: "module:function", from networks and parameters to a `Classifier`, `Purifier` or `Detector`.
        weights: names of its networks; "{key}" stands for a parameter.
        version: increased when the same parameters give other outputs.
        noise_scale: the parameter whose value 0 removes all noise; "" if there is none.
        trainer: "module:class", the objective that trains its network; "" if nothing is trained.
        parameters: defaults, the published CIFAR-10 values. A default also fixes the kind of values: 10 means whole
            numbers alone, 10.0 and "1/4" any number.
        optional: parameters that may be None, which leaves the choice to `build`.
        later: parameters that are no part of the fingerprint at their default, as results are older than they are.
        datasets: defaults for other data sets, in place of `parameters`.
        recipes: of its network's training, by data set (see `defenses.training.recipe`).
        tune: candidates for deployment by data set: {eps, grid}, the grid with a list of values by parameter.
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
    parameters: JsonView = field(default_factory=dict)
    datasets: Mapping[str, JsonView] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    later: tuple[str, ...] = ()
    network_gradients: Mapping[str, list[str]] = field(default_factory=dict)
    recipes: Mapping[str, JsonView] = field(default_factory=dict)
    tune: Mapping[str, JsonView] = field(default_factory=dict)

    @property
    def claims(self) -> tuple[JsonView, ...]:
        """Return published numbers of the defense, each with its source, from `leaderboards/claims`."""
        return tuple(claim for claim in _claims() if claim["defense"] == self.name)

    @property
    def family(self) -> str:
        """Return the family of the defense, one of `FAMILIES`."""
        if self.kind == "classifier":
            return FAMILIES[0] if ".adversarial." in self.trainer else FAMILIES[1]
        if self.kind == "detector":
            return FAMILIES[4]
        return FAMILIES[3] if self.build.startswith("defenses.filters.") else FAMILIES[2]

    def merged(self, dataset: str, params: JsonView) -> dict[str, object]:
        """Return all parameters for a data set in canonical form, with those of a composition where they are given.

        Raises:
            UserError: unknown parameters, and values of another kind than their defaults.
        """
        values = {**self.parameters, **self.datasets.get(dataset, {}), **params}
        return dict(gathered(lambda key: (key, self._checked(key, values[key])), sorted(values)))

    def _checked(self, key: str, value: object) -> Any:
        """Return a value in canonical form, of the kind of its parameter."""
        if key in COMMON[self.kind]:
            kind = _COMMON_KINDS[key]
        elif key in self.parameters:
            kind = kind_of(self.parameters[key])
        else:
            raise unknown(f"parameter of {self.name}", key, [*self.parameters, *COMMON[self.kind]])
        try:
            checked = canonical(value, key)
            if checked is not None or key not in (*_ABSENT, *self.optional):
                validated(kind, checked, name=under(key))
        except UserError as error:
            raise with_context(self.name, error) from None
        return checked

    def random(self, merged: JsonView) -> bool:
        """Return True if the defense by itself is stochastic with these parameters."""
        return self.stochastic and not (self.noise_scale and decode(merged[self.noise_scale]) == 0)

    def networks(self, merged: Mapping[str, object]) -> list[str]:
        """Return the names of the weights that the defense by itself loads with these parameters."""
        further = [str(merged["autoencoder"])] if "autoencoder" in merged and self.kind == "purifier" else []
        return [name.format(**merged) for name in self.weights] + further


@functools.cache
def _cards() -> dict[str, Card]:
    cards = {}
    for path in sorted(_CARDS.glob("*.toml")):
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        for key in ("gradients", "weights", "optional", "later"):
            raw[key] = tuple(raw.get(key, ()))
        cards[path.stem] = Card(name=path.stem, **raw)
    return cards


@functools.cache
def _claims() -> list[dict[str, object]]:
    files = [tomllib.loads(path.read_text(encoding="utf-8")) for path in sorted(_CLAIMS.glob("*.toml"))]
    return [{k: v for k, v in file.items() if k != "claims"} | claim for file in files for claim in file["claims"]]


def list_models() -> list[str]:
    """Return the ids of all registered defenses."""
    return list(_cards())


def card(name: str) -> Card:
    """Return the card of a registered defense.

    Raises:
        UserError: unknown name; of a file, the message says how its class is named.
    """
    if name.endswith(".py"):
        raise UserError(f'"{name}" is a file; name the class in it, as {name}:Net')
    if name.endswith(_CHECKPOINTS):
        raise UserError(f'"{name}" is a checkpoint; name a class that builds the network and loads it, as net.py:Net')
    if name not in _cards():
        raise unknown("defense", name, _cards())
    return _cards()[name]


def refuse_around(name: str, params: Mapping[str, object]) -> None:
    """Refuse filters and detectors as parameters of a model that is named as the defense itself.

    Args:
        name: of the model.
        params: its parameters.

    Raises:
        UserError: they contain filters or a detector.
    """
    for key in ("filters", "detector"):
        if key in params:
            part = key.removesuffix("s")
            raise UserError(f'"{name}" takes no {key}; name the {part} as the defense, with classifier = "{name}"')
