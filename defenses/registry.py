"""The registry: cards of the known defenses, and loading by name. Torch is imported only when a model is loaded."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
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
        stochastic: whether a prediction depends on noise.
        gradients: the gradient modes an attack view may ask for.
        build: "module:function", from networks and parameters to a `Defense`.
        weights: names of the networks it needs; "{key}" stands for a parameter.
        version: raised when the same parameters would give other outputs.
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
        The defense, in evaluation mode, float32, on the CPU.

    Raises:
        UserError: unknown name or parameter; weights missing or damaged.
    """
    if is_plugin(model_name):
        return _as_defense(_load_object(model_name), params, model_name)
    from bench.data import dataset_info
    from defenses.weights_io import load_network

    entry = card(model_name)
    merged = entry.merged(dataset, params)
    info = dataset_info(dataset)

    def network(name: str) -> nn.Module:
        return load_network(name, dataset, root=weights_root)

    build = _load_object(entry.build)
    arguments = {key: decode(value) for key, value in merged.items()}
    defense: Defense = build(network, num_classes=info.num_classes, input_shape=info.shape, **arguments)
    defense.requires_grad_(False)
    return defense


def _load_object(name: str) -> Any:
    """The object "module:name" or "file.py:name"."""
    where, _, what = name.rpartition(":")
    try:
        if where.endswith(".py"):
            module = _module_from_file(Path(where))
        else:
            if "" not in sys.path and str(Path.cwd()) not in sys.path:
                sys.path.insert(0, str(Path.cwd()))
            module = importlib.import_module(where)
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise UserError(f'cannot import "{where}" of "{name}": {error}; it must be importable or a .py file') from error
    if not hasattr(module, what):
        raise unknown(f"name in {where}", what, [n for n in vars(module) if not n.startswith("_")])
    return getattr(module, what)


@functools.cache
def _module_from_file(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(f"purebench_plugin_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _as_defense(found: Any, params: Mapping[str, Any], name: str) -> Defense:
    from torch import nn

    from defenses.base import Defense, Foreign

    try:
        model = found if isinstance(found, nn.Module) else found(**params)
    except TypeError as error:
        raise UserError(f'"{name}" cannot be built: {error}') from error
    if not isinstance(model, nn.Module):
        raise UserError(f'"{name}" is no torch.nn.Module but {type(model).__name__}; give a module or what makes one')
    return model if isinstance(model, Defense) else Foreign(model, stochastic=False)


def plugin_source(name: str) -> Path | None:
    """The source file of a plug-in, None when it has none (an extension module)."""
    where = name.rpartition(":")[0]
    if where.endswith(".py"):
        return Path(where)
    try:
        spec = importlib.util.find_spec(where)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec is not None and spec.origin else None
