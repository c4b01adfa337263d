"""The registry: defenses by name, their fingerprints and loading. Torch is imported only when a model is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defenses.utils.errors import UserError, with_context
from defenses.utils.names import is_plugin, is_zoo
from defenses.utils.parameters import canonical, decode, plain
from defenses.zoo.cards import COMMON, Card, card, list_models
from defenses.zoo.composition import KEYS, Named, Parts, composed, parts_of, with_own

if TYPE_CHECKING:
    from defenses.core.defense import Defense

_KINDS = {"filter": "purifier", "detector": "detector", "classifier": "classifier"}  # by role in a composition


def fingerprint(
    name: str,
    dataset: str,
    given: Mapping[str, Any],
    *,
    weights_root: str | Path | None = None,
    training_seed: int | None = None,
    data_root: str | Path | None = None,
) -> dict[str, Any]:
    """Everything that the outputs of a registered defense or a zoo's model depend on: parameters, hashes of weights.

    What a classifier or filter in somebody's own file is, only `load_model` can tell
    (`defenses.zoo.composition.with_own`).

    Raises:
        UserError: unknown name or parameter; weights missing.
    """
    from defenses.data.dataset import clean_name
    from defenses.zoo.checkpoints import weights_hash

    dataset = clean_name(dataset)
    if is_zoo(name):
        from defenses.zoo import robustbench as robustbench_zoo

        if training_seed is not None:
            raise UserError(f"{name} comes with weights of its own, of one training; leave the training seed out")
        return robustbench_zoo.fingerprint(name, dataset, given, weights_root=weights_root)
    known = named_card(name)
    identified = _own(known, dataset, given, weights_root, training_seed)
    around = []
    for role, part in parts_of(decode(identified["parameters"])):
        if role == "classifier" and known.kind == "classifier":
            continue  # its own weights
        if role != "detector" and is_plugin(part.name):
            _check_keys(role, part)
            continue
        if role == "classifier" and not part.params and not is_zoo(part.name):
            _known_classifier(part.name, dataset, weights_root, training_seed)
            sha = weights_hash(part.name, dataset, weights_root, training_seed=training_seed)
            identified["weights"][part.name] = sha
            continue
        around.append({"role": role, **_part(role, part, dataset, weights_root, training_seed)})
    if known.kind == "detector" or any(part["role"] == "detector" for part in around):
        from defenses.data.dataset import dataset_info

        # What it is fitted and calibrated on.
        identified["detector_data"] = dataset_info(dataset, root=data_root).revision
    seed = {"training_seed": training_seed} if training_seed else {}
    return identified | seed | ({"around": around} if around else {})


def named_card(name: str) -> Card:
    """Return the card of a registered defense.

    Raises:
        UserError: unknown name; suggests RobustBench's model where the name is one of its zoo.
    """
    if name not in list_models():
        from defenses.zoo.robustbench_index import lists

        if lists(name):
            raise UserError(f'unknown defense "{name}"; a model of RobustBench is named "robustbench:{name}"')
    return card(name)


def _own(
    known: Card, dataset: str, given: Mapping[str, Any], weights_root: str | Path | None, training_seed: int | None
) -> dict[str, Any]:
    """The fingerprint of a registered defense by itself."""
    from defenses.zoo.checkpoints import weights_hash

    merged = known.merged(dataset, given)
    files = known.networks(merged)
    hashes = {n: weights_hash(n, dataset, weights_root, training_seed=training_seed) for n in files}
    return {"name": known.name, "version": known.version, "parameters": merged, "weights": hashes}


def _part(
    role: str, part: Named, dataset: str, weights_root: str | Path | None, training_seed: int | None
) -> dict[str, Any]:
    """The fingerprint of a part in a composition.

    Raises:
        UserError: it is of another kind than its role, or a composition itself.
    """
    if is_zoo(part.name):
        return fingerprint(part.name, dataset, part.params, weights_root=weights_root)
    found = _own(_known(role, part), dataset, part.params, weights_root, training_seed)
    kept = {k: v for k, v in found["parameters"].items() if k not in KEYS or role == "classifier"}
    return {**found, "parameters": kept}


def _known_classifier(name: str, dataset: str, weights_root: str | Path | None, training_seed: int | None) -> None:
    """A card's name, or that of weights."""
    from defenses.zoo.weight_paths import has_weights

    if name in list_models() or not has_weights(name, dataset, weights_root, training_seed=training_seed):
        _known("classifier", Named(name, {}))


def _known(role: str, part: Named) -> Card:
    if is_zoo(part.name) or is_plugin(part.name):
        raise UserError(
            f'"{part.name}" cannot stand as a {role} by its name; put it together with defenses.core.defense'
        )
    known = card(part.name)
    if known.kind != _KINDS[role]:
        raise UserError(f'"{part.name}" is a {known.kind} and cannot stand as a {role}; name a {_KINDS[role]}')
    _check_keys(role, part)
    return known


def _check_keys(role: str, part: Named) -> None:
    for key in part.params:
        if key in KEYS:
            raise UserError(f'{role} "{part.name}" takes no "{key}" inside a composition; give it to the whole')


def load_model(
    model_name: str,
    dataset: str = "digits",
    *,
    weights_root: str | Path | None = None,
    training_seed: int | None = None,
    data_root: str | Path | None = None,
    **params: Any,
) -> Defense:
    """Load a defense by name.

    Args:
        model_name: an id of `list_models()`; "robustbench:" and an id of RobustBench's zoo; or one's own
            "module:Class" or "path/to/file.py:Class" (a class or a function without required arguments, or an
            instance; `params` are passed on). A `Purifier` stands before the model that the parameter `classifier`
            names; `runs` and `combine` are those of `Purified`. A plain classifier and filters (`Purifier`s) of one's
            own have such names too.
        dataset: the data set it is for; weights and defaults depend on it. A corrupted one is as the clean one.
        weights_root: a folder `<root>/<dataset>/<name>.safetensors` (of the zoo:
            `<root>/robustbench/<dataset>/<threat model>/<id>.pt`, or without `robustbench/`), looked at before the
            packaged weights. Downloads go to the cache and not there.
        training_seed: which of several trainings: all networks of a registered defense, the classifier behind a
            purifier among them, are those that `purebench train --seed` made with it. None: the weights that have the
            networks' names alone. One's own class gets it as an argument.
        data_root: where data sets lie, for a detector learns from one and is calibrated on it; None: where
            `defenses.utils.paths.data_root` says.
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
    from defenses.data.dataset import clean_name

    dataset = clean_name(plain(dataset))
    if is_plugin(model_name):
        from defenses.zoo.user_models import load_plugin

        return load_plugin(model_name, params, parts(dataset, weights_root, training_seed, data_root))
    from defenses.utils.identity import Provenance, identity
    from defenses.zoo.robustbench_arguments import translated

    params = {key: plain(value) for key, value in params.items()}
    if isinstance(model_name, str) and not is_zoo(model_name):
        named_card(model_name)
    weights_root, params = translated(model_name, weights_root, params)
    identified = fingerprint(
        model_name, dataset, params, weights_root=weights_root, training_seed=training_seed, data_root=data_root
    )
    if is_zoo(model_name):
        from defenses.zoo import robustbench as robustbench_zoo

        defense: Defense = robustbench_zoo.load(model_name, dataset, params, weights_root=weights_root)
    else:
        source = parts(dataset, weights_root, training_seed, data_root)
        try:
            defense = _registered(model_name, identified["parameters"], source)
        except UserError as error:
            raise with_context(model_name, error) from None
        identified = with_own(identified, source.own)
    defense.requires_grad_(False)
    # Not through nn.Module's own __setattr__, which is typed for tensors and modules.
    state = identity(defense)[0]
    vars(defense)["provenance"] = Provenance(model_name, canonical(params), identified, state, training_seed)
    return defense


def _registered(name: str, parameters: Mapping[str, Any], source: Parts) -> Defense:
    known, values = card(name), {key: decode(value) for key, value in parameters.items()}
    found = _built(known, {k: v for k, v in values.items() if k not in COMMON[known.kind]}, source)
    return composed(name, found, {k: v for k, v in values.items() if k in COMMON[known.kind]}, source)


def parts(
    dataset: str, weights_root: str | Path | None, training_seed: int | None, data_root: str | Path | None = None
) -> Parts:
    """Where a composition takes its parts from."""
    from defenses.zoo.user_models import load_filter

    def make(role: str, part: Named) -> tuple[Any, dict[str, Any]]:
        if role == "filter" and is_plugin(part.name):
            _check_keys(role, part)
            made = load_filter(part.name, part.params, training_seed)
            source.note(role, part, made)
            return made, {}
        known = _known(role, part)
        values = {k: decode(v) for k, v in known.merged(dataset, part.params).items()}
        return _built(known, {k: v for k, v in values.items() if k not in COMMON[known.kind]}, source), values

    source = Parts(dataset, weights_root, training_seed, data_root, make, load_model)
    return source


def _built(known: Card, own: Mapping[str, Any], source: Parts) -> Any:
    """What a card's `build` makes of its own parameters."""
    from defenses.data.dataset import dataset_info
    from defenses.utils.plugins import load_object

    info = dataset_info(source.dataset, root=source.data_root)
    build = load_object(known.build)
    data = {"num_classes": info.num_classes, "input_shape": info.shape}
    wanted = signature(build).parameters
    try:
        return build(source.trained, **{k: v for k, v in data.items() if k in wanted}, **own)
    except UserError as error:
        raise with_context(known.name, error) from None
