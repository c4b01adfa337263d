"""The registry: cards of the known defenses, and loading by name. Torch is imported only when a model is loaded."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defenses.errors import UserError, unknown

if TYPE_CHECKING:
    from torch import nn

    from defenses.base import Defense

_CARDS = Path(__file__).parent / "cards"


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
        stochastic: whether a prediction depends on noise, see `random`.
        gradients: the gradient modes an attack view may ask for.
        build: "module:function", from networks and parameters to a `Defense`.
        weights: names of the networks it needs; "{key}" stands for a parameter.
        version: raised when the same parameters would give other outputs.
        noise_scale: the parameter that, when it is 0, takes the noise away; "" when none does.
        train: whether `purebench train` has a recipe of this name.
        parameters: defaults, the published CIFAR-10 values.
        datasets: defaults for other data sets, over `parameters`.
        claims: published numbers, each with its source.
    """

    name: str
    title: str
    authors: str
    venue: str
    url: str
    licence: str
    summary: str
    stochastic: bool
    gradients: tuple[str, ...]
    build: str
    weights: tuple[str, ...]
    version: int
    noise_scale: str = ""
    train: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)
    datasets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    claims: tuple[Mapping[str, Any], ...] = ()

    def merged(self, dataset: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters for a data set, in canonical form.

        Raises:
            UserError: a parameter that the defense does not have.
        """
        for key in given:
            if key not in self.parameters:
                raise unknown(f"parameter of {self.name}", key, self.parameters)
        values = {**self.parameters, **self.datasets.get(dataset, {}), **given}
        return {key: canonical(value) for key, value in sorted(values.items())}

    def random(self, merged: Mapping[str, Any]) -> bool:
        """Whether a defense with these parameters is stochastic."""
        return self.stochastic and not (self.noise_scale and decode(merged[self.noise_scale]) == 0)

    def networks(self, merged: Mapping[str, Any]) -> list[str]:
        """The names of the weights that a defense with these parameters loads."""
        return [name.format(**merged) for name in self.weights]


def canonical(value: Any) -> Any:
    """One spelling for one value: numbers and numeric texts become fraction strings ("0.15" and "3/20" agree)."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float | Fraction):
        return str(Fraction(str(value)))
    if isinstance(value, str):
        try:
            return str(Fraction(value))
        except (ValueError, ZeroDivisionError):
            return value
    if isinstance(value, Mapping):
        return {str(k): canonical(v) for k, v in sorted(value.items())}
    if isinstance(value, list | tuple):
        return [canonical(v) for v in value]
    raise UserError(f"a parameter is {value!r}; only numbers, texts, true and false, lists and tables are possible")


def decode(value: Any) -> Any:
    """The Python value of a canonical one: whole numbers become int, other numbers float."""
    if isinstance(value, str):
        try:
            number = Fraction(value)
        except (ValueError, ZeroDivisionError):
            return value
        return int(number) if number.denominator == 1 else float(number)
    if isinstance(value, Mapping):
        return {k: decode(v) for k, v in value.items()}
    if isinstance(value, list):
        return [decode(v) for v in value]
    return value


@functools.cache
def _cards() -> dict[str, Card]:
    cards = {}
    for path in sorted(_CARDS.glob("*.toml")):
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        for key in ("gradients", "weights", "claims"):
            raw[key] = tuple(raw.get(key, ()))
        cards[path.stem] = Card(name=path.stem, **raw)
    return cards


def list_models() -> list[str]:
    """The ids of all registered defenses."""
    return list(_cards())


def is_plugin(name: str) -> bool:
    """Whether a name means somebody's own class: "module:Class" or "path/to/file.py:Class"."""
    return ":" in name


def card(name: str) -> Card:
    """The card of a registered defense.

    Raises:
        UserError: there is none of that name.
    """
    if name not in _cards():
        raise unknown("defense", name, _cards())
    return _cards()[name]


def fingerprint(
    name: str, dataset: str, given: Mapping[str, Any], *, weights_root: str | Path | None = None
) -> dict[str, Any]:
    """Everything that the outputs of a registered defense depend on: version, all parameters, hashes of its weights.

    Raises:
        UserError: unknown name or parameter; weights missing.
    """
    from defenses.weights_io import weights_hash

    known = card(name)
    merged = known.merged(dataset, given)
    return {
        "name": name,
        "version": known.version,
        "parameters": merged,
        "weights": {n: weights_hash(n, dataset, root=weights_root) for n in known.networks(merged)},
    }


def load_model(
    model_name: str, dataset: str = "digits", *, weights_root: str | Path | None = None, **params: Any
) -> Defense:
    """Load a defense by name.

    Args:
        model_name: an id of `list_models()`, or one's own "module:Class" or "path/to/file.py:Class" (a class or a
            function without required arguments, or an instance; `params` are passed on).
        dataset: the data set it is for; weights and defaults depend on it.
        weights_root: a folder `<root>/<dataset>/<name>.safetensors`, looked at before the packaged weights.
        **params: over the defaults of the card; numbers may be fractions as "1/4".

    Returns:
        The defense, in evaluation mode, float32, on the CPU. One that is registered has its `Provenance` in the
        attribute `provenance`.

    Raises:
        UserError: unknown name or parameter; weights missing or damaged; a class of one's own that cannot be loaded.
    """
    from defenses.plugins import load_object, load_plugin

    if is_plugin(model_name):
        return load_plugin(model_name, params)
    from bench.data import dataset_info
    from defenses.identity import Provenance, identity
    from defenses.weights_io import load_network

    identified = fingerprint(model_name, dataset, params, weights_root=weights_root)
    info = dataset_info(dataset)

    def network(name: str) -> nn.Module:
        return load_network(name, dataset, root=weights_root)

    build = load_object(card(model_name).build)
    arguments = {key: decode(value) for key, value in identified["parameters"].items()}
    defense: Defense = build(network, num_classes=info.num_classes, input_shape=info.shape, **arguments)
    defense.requires_grad_(False)
    # Not through nn.Module's own __setattr__, which is typed for tensors and modules.
    vars(defense)["provenance"] = Provenance(model_name, canonical(params), identified, identity(defense)[0])
    return defense
