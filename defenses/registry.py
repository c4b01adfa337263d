"""The registry: cards of the known defenses, and loading by name. Torch is imported only when a model is loaded."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
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


_EXPONENT, _LONGEST = re.compile(r"[eE][+-]?\d{4}"), 200  # of texts that are numbers


def as_fraction(value: float | Fraction) -> Fraction:
    """A number as a fraction: as it prints, but a float that is n/255 for a whole n, as 8 / 255 is, becomes that."""
    if isinstance(value, float):
        n = round(value * 255) if abs(value) < 1e6 else 0
        if n / 255 == value:
            return Fraction(n, 255)
    return Fraction(str(value))


def plain(value: Any) -> Any:
    """The value that an enum stands for, as RobustBench's `ThreatModel.Linf` for "Linf"; else the value as it is."""
    return value.value if isinstance(value, Enum) else value


def as_number(text: str) -> Fraction | None:
    """The number that a text is, else None; "1e999999999", whose digits would fill memory, is none."""
    if len(text) > _LONGEST or _EXPONENT.search(text):
        return None
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None


def canonical(value: Any) -> Any:
    """One spelling for one value: numbers and numeric texts become fraction strings ("0.15" and "3/20" agree)."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float | Fraction):
        return str(as_fraction(value))
    if isinstance(value, str):
        number = as_number(value)
        return value if number is None else str(number)
    if isinstance(value, Mapping):
        return {str(k): canonical(v) for k, v in sorted(value.items())}
    if isinstance(value, list | tuple):
        return [canonical(v) for v in value]
    raise UserError(f"a parameter is {value!r}; only numbers, texts, true and false, lists and tables are possible")


def decode(value: Any) -> Any:
    """The Python value of a canonical one: whole numbers become int, other numbers float."""
    if isinstance(value, str):
        number = as_number(value)
        if number is None:
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


def is_zoo(name: str) -> bool:
    """Whether a name means a model of RobustBench's zoo: "robustbench:Wong2020Fast"."""
    return name.startswith("robustbench:")


def is_plugin(name: str) -> bool:
    """Whether a name means somebody's own class: "module:Class" or "path/to/file.py:Class"."""
    return isinstance(name, str) and ":" in name and not is_zoo(name)


def card(name: str) -> Card:
    """The card of a registered defense.

    Raises:
        UserError: there is none of that name.
    """
    if name not in _cards():
        from defenses.robustbench_list import lists

        if lists(name):
            raise UserError(f'unknown defense "{name}"; a model of RobustBench is named "robustbench:{name}"')
        raise unknown("defense", name, _cards())
    return _cards()[name]


def fingerprint(
    name: str,
    dataset: str,
    given: Mapping[str, Any],
    *,
    weights_root: str | Path | None = None,
    training_seed: int | None = None,
) -> dict[str, Any]:
    """Everything that the outputs of a registered defense or a zoo's model depend on: parameters, hashes of weights.

    Raises:
        UserError: unknown name or parameter; weights missing.
    """
    from defenses.weights_io import weights_hash

    if is_zoo(name):
        from defenses import robustbench_zoo

        if training_seed is not None:
            raise UserError(f"{name} comes with weights of its own, of one training; leave the training seed out")
        return robustbench_zoo.fingerprint(name, dataset, given, weights_root=weights_root)
    known = card(name)
    merged = known.merged(dataset, given)
    hashes = {n: weights_hash(n, dataset, weights_root, training_seed=training_seed) for n in known.networks(merged)}
    identified = {"name": name, "version": known.version, "parameters": merged, "weights": hashes}
    return identified | ({"training_seed": training_seed} if training_seed else {})


def load_model(
    model_name: str,
    dataset: str = "digits",
    *,
    weights_root: str | Path | None = None,
    training_seed: int | None = None,
    **params: Any,
) -> Defense:
    """Load a defense by name.

    Args:
        model_name: an id of `list_models()`; "robustbench:" and an id of RobustBench's zoo; or one's own
            "module:Class" or "path/to/file.py:Class" (a class or a function without required arguments, or an
            instance; `params` are passed on). A `Purifier` stands before the model that the parameter `classifier`
            names; `runs` and `combine` are those of `Purified`.
        dataset: the data set it is for; weights and defaults depend on it.
        weights_root: a folder `<root>/<dataset>/<name>.safetensors` (of the zoo:
            `<root>/robustbench/<dataset>/<threat model>/<id>.pt`, or without `robustbench/`), looked at before the
            packaged weights. Downloads go to the cache and not there.
        training_seed: which of several trainings: all networks of a registered defense, the classifier behind a
            purifier among them, are those that `purebench train --seed` made with it. None: the weights that have the
            networks' names alone. One's own class gets it as an argument.
        **params: over the defaults of the card; numbers may be fractions as "1/4". Of the zoo: threat_model. A call
            written for RobustBench is understood: model_dir is weights_root, and threat_model (a name or its enum) may
            be any norm for a registered defense, which is the same under all of them.

    Returns:
        The defense, in evaluation mode, float32, on the CPU. One that is registered or of the zoo has its
        `Provenance` in the attribute `provenance`.

    Raises:
        UserError: unknown name or parameter; weights missing or damaged; a class of one's own that cannot be loaded.
    """
    if training_seed is not None and type(training_seed) is not int:
        raise UserError(f"training_seed is {training_seed!r}; it must be a whole number")
    if is_plugin(model_name):
        from defenses.plugins import load_plugin

        return load_plugin(model_name, params, dataset, weights_root, training_seed)
    from defenses.identity import Provenance, identity
    from defenses.robustbench_call import translated

    dataset, params = plain(dataset), {key: plain(value) for key, value in params.items()}
    weights_root, params = translated(model_name, weights_root, params)
    identified = fingerprint(model_name, dataset, params, weights_root=weights_root, training_seed=training_seed)
    if is_zoo(model_name):
        from defenses import robustbench_zoo

        defense: Defense = robustbench_zoo.load(model_name, dataset, params, weights_root=weights_root)
    else:
        defense = _registered(model_name, dataset, identified["parameters"], weights_root, training_seed)
    defense.requires_grad_(False)
    # Not through nn.Module's own __setattr__, which is typed for tensors and modules.
    state = identity(defense)[0]
    vars(defense)["provenance"] = Provenance(model_name, canonical(params), identified, state, training_seed)
    return defense


def _registered(
    name: str,
    dataset: str,
    parameters: Mapping[str, Any],
    weights_root: str | Path | None,
    training_seed: int | None,
) -> Defense:
    from bench.data import dataset_info
    from defenses.plugins import load_object
    from defenses.weights_io import load_network

    info = dataset_info(dataset)

    def network(weights: str) -> nn.Module:
        return load_network(weights, dataset, root=weights_root, training_seed=training_seed)

    arguments = {key: decode(value) for key, value in parameters.items()}
    build = load_object(card(name).build)
    defense: Defense = build(network, num_classes=info.num_classes, input_shape=info.shape, **arguments)
    return defense
