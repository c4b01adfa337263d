"""Registered defenses by name: fingerprints and loading. Torch is imported only when a model is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defenses.data.dataset import clean_name, dataset_info
from defenses.utils.errors import UserError, with_context
from defenses.utils.json_values import Json, JsonView
from defenses.utils.names import is_plugin, is_zoo
from defenses.utils.parameters import canonical, decode, plain
from defenses.utils.plugins import load_object
from defenses.utils.replacements import making
from defenses.zoo import robustbench, robustbench_index
from defenses.zoo.cards import COMMON, Card, card, list_models
from defenses.zoo.checkpoints import read_sidecar, weights_hash
from defenses.zoo.composition import KEYS, Named, parts_of, plugins_of, with_user_parts
from defenses.zoo.robustbench_arguments import translated
from defenses.zoo.weight_paths import find_weights, has_weights

if TYPE_CHECKING:
    from defenses.core.defense import Defense
    from defenses.zoo.assembly import Parts

_KINDS = {"filter": "purifier", "detector": "detector", "classifier": "classifier"}  # by role in a composition


def fingerprint(
    name: str,
    dataset: str,
    params: Mapping[str, object],
    *,
    weights_root: str | Path | None = None,
    training_seed: int | None = None,
    data_root: str | Path | None = None,
) -> Json:
    """Return all that the outputs of a registered or zoo model depend on: parameters, hashes of weights.

    User-defined classifiers and filters are left out, since only `load_model` can build them
    (`defenses.zoo.composition.with_user_parts`).

    Args:
        name: an id of `list_models()`, or "robustbench:" and an id of RobustBench's zoo.
        dataset: name of the data set.
        params: of the defense.
        weights_root: folder of weights to look in first.
        training_seed: of the weights.
        data_root: folder of data sets.

    Raises:
        UserError: unknown name or parameter; weights missing.
    """
    dataset = clean_name(dataset)
    if is_zoo(name):
        if training_seed is not None:
            raise UserError(f"{name} comes with weights of its own, of one training; leave the training seed out")
        return robustbench.fingerprint(name, dataset, params, weights_root=weights_root)
    registered = named_card(name)
    identified = _card_fingerprint(registered, dataset, params, weights_root, training_seed)
    around = []
    for role, part in parts_of(decode(identified["parameters"])):
        if role == "classifier" and registered.kind == "classifier":
            continue  # the name of its weights
        if role != "detector" and is_plugin(part.name):
            _check_keys(role, part)
            continue
        if role == "classifier" and not part.params and not is_zoo(part.name):
            _check_classifier_name(part.name, dataset, weights_root, training_seed)
            sha = weights_hash(part.name, dataset, weights_root, training_seed=training_seed)
            identified["weights"][part.name] = sha
            continue
        around.append({"role": role, **_part_fingerprint(role, part, dataset, weights_root, training_seed)})
    if registered.kind == "detector" or any(part["role"] == "detector" for part in around):
        # Detectors are fitted and calibrated on it.
        identified["detector_data"] = dataset_info(dataset, root=data_root).revision
    seed = {"training_seed": training_seed} if training_seed else {}
    return identified | seed | ({"around": around} if around else {})


def named_card(name: str) -> Card:
    """Return the card of a registered defense.

    Raises:
        UserError: unknown name; the message suggests RobustBench's model of that name.
    """
    if name not in list_models() and robustbench_index.lists(name):
        raise UserError(f'unknown defense "{name}"; a model of RobustBench is named "robustbench:{name}"')
    return card(name)


def _card_fingerprint(
    registered: Card,
    dataset: str,
    params: Mapping[str, object],
    weights_root: str | Path | None,
    training_seed: int | None,
) -> Json:
    """Return the fingerprint of a registered defense by itself."""
    merged = registered.merged(dataset, params)
    files = registered.networks(merged)
    hashes = {n: weights_hash(n, dataset, weights_root, training_seed=training_seed) for n in files}
    told = {k: v for k, v in merged.items() if k not in registered.later or v != registered.parameters[k]}
    return {"name": registered.name, "version": registered.version, "parameters": told, "weights": hashes}


def gradients_of(
    registered: Card, dataset: str, params: JsonView, *, weights_root: str | Path | None, training_seed: int | None
) -> tuple[str, ...]:
    """Return the gradient modes of a registered defense with its networks; arguments and faults as of `fingerprint`."""
    merged, known = registered.merged(dataset, params), registered.network_gradients
    names = registered.networks(merged) if known else []
    files = [find_weights(n, clean_name(dataset), weights_root, training_seed=training_seed) for n in names]
    further = [mode for file in files for mode in known.get(read_sidecar(file)["network"]["kind"], [])]
    further += ["bpda-autoencoder"] if "autoencoder" in merged else []
    return tuple(dict.fromkeys([*registered.gradients, *further]))


def _part_fingerprint(
    role: str, part: Named, dataset: str, weights_root: str | Path | None, training_seed: int | None
) -> dict[str, object]:
    """Return the fingerprint of a part in a composition.

    Raises:
        UserError: its kind does not fit its role, or it is itself a composition.
    """
    if is_zoo(part.name):
        return fingerprint(part.name, dataset, part.params, weights_root=weights_root)
    identified = _card_fingerprint(_part_card(role, part), dataset, part.params, weights_root, training_seed)
    parameters = {k: v for k, v in identified["parameters"].items() if k not in KEYS or role == "classifier"}
    return {**identified, "parameters": parameters}


def _check_classifier_name(name: str, dataset: str, weights_root: str | Path | None, training_seed: int | None) -> None:
    """Refuse a name that is neither a registered classifier nor weights."""
    if name in list_models() or not has_weights(name, dataset, weights_root, training_seed=training_seed):
        _part_card("classifier", Named(name, {}))


def _part_card(role: str, part: Named) -> Card:
    if is_zoo(part.name) or is_plugin(part.name):
        raise UserError(f'"{part.name}" cannot stand as a {role} by its name; write a defenses.Defense that holds both')
    registered = card(part.name)
    if registered.kind != _KINDS[role]:
        raise UserError(f'"{part.name}" is a {registered.kind} and cannot stand as a {role}; name a {_KINDS[role]}')
    _check_keys(role, part)
    return registered


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
    stochastic: bool | None = None,
    **params: Any,
) -> Defense:
    """Load a defense by name.

    Args:
        model_name: an id of `list_models()`; "robustbench:" and an id of RobustBench's zoo; or a user-defined
            "module:Class" or "path/to/file.py:Class" (a class or a function without required arguments, or an
            instance; `params` are passed on). A `Purifier` is put before the model that the parameter `classifier`
            names, with `runs` and `combine` of `Purified`. User-defined plain classifiers and filters (`Purifier`s)
            are named alike.
        dataset: the data set it is for; weights and defaults depend on it. A corrupted one counts as the clean one.
        weights_root: a folder with `<dataset>/<name>.safetensors` (of the zoo:
            `robustbench/<dataset>/<threat model>/<id>.pt`, or without `robustbench/`), searched before the packaged
            weights. Downloads go to the cache.
        training_seed: of all networks of a registered defense, the classifier behind a purifier included, as made by
            `purebench train --seed`. None: the weights without a seed in their name. A user-defined class gets it as
            an argument.
        data_root: folder of data sets, on which detectors are fitted and calibrated; None: see
            `defenses.utils.paths.data_root`.
        stochastic: True if the outputs of a user-defined plain module are random; None: they are not. Any other
            defense says it itself, and must agree.
        **params: in place of the card's defaults; numbers may be fractions as "1/4". Of the zoo: threat_model.
            RobustBench's own arguments are accepted: model_dir for weights_root, and threat_model (a name or its
            enum), which may be any norm for a registered defense and changes nothing there.

    Returns:
        The defense, in evaluation mode, float32, on the CPU. Registered ones and those of the zoo have their
        `Provenance` in the attribute `provenance`.

    Raises:
        UserError: unknown name or parameter; weights missing or damaged; a user-defined class that cannot be loaded.
    """
    if not isinstance(plain(dataset), str):
        raise UserError(f'dataset is {dataset!r}; give a name, as "digits"')
    if training_seed is not None and type(training_seed) is not int:
        raise UserError(f"training_seed is {training_seed!r}; it must be a whole number")
    try:
        plugins = plugins_of(model_name, params)
    except UserError as error:
        raise with_context(model_name, error) from None
    with making(model_name, plugins, params, training_seed):
        defense = _load_model(
            *(model_name, clean_name(plain(dataset)), weights_root, training_seed, data_root, params),
            stochastic=stochastic is True,
        )
    if stochastic not in (None, defense.stochastic):
        raise UserError(
            f'"{model_name}" says itself whether it is stochastic ({str(defense.stochastic).lower()}); '
            'leave "stochastic" (--stochastic) out'
        )
    return defense


def _load_model(
    model_name: str,
    dataset: str,
    weights_root: str | Path | None,
    training_seed: int | None,
    data_root: str | Path | None,
    params: Json,
    *,
    stochastic: bool,
) -> Defense:
    """Return a defense by name; `load_model` has the arguments."""
    if is_plugin(model_name):
        from defenses.zoo.user_models import load_plugin

        source = parts(dataset, weights_root, training_seed, data_root)
        return load_plugin(model_name, params, source, stochastic=stochastic)
    from defenses.utils.identity import Provenance, identity

    params = {key: plain(value) for key, value in params.items()}
    if isinstance(model_name, str) and not is_zoo(model_name):
        named_card(model_name)
    weights_root, params = translated(model_name, weights_root, params)
    identified = fingerprint(
        model_name, dataset, params, weights_root=weights_root, training_seed=training_seed, data_root=data_root
    )
    if is_zoo(model_name):
        defense: Defense = robustbench.load(model_name, dataset, params, weights_root=weights_root)
    else:
        source = parts(dataset, weights_root, training_seed, data_root)
        try:
            defense = _load_registered(model_name, identified["parameters"], source)
        except UserError as error:
            raise with_context(model_name, error) from None
        identified = with_user_parts(identified, source.user_parts)
    defense.requires_grad_(False)
    # nn.Module.__setattr__ is typed for tensors and modules.
    state = identity(defense)[0]
    vars(defense)["provenance"] = Provenance(model_name, canonical(params), identified, state, training_seed)
    return defense


def _load_registered(name: str, parameters: JsonView, source: Parts) -> Defense:
    from defenses.zoo.assembly import composed

    registered, values = card(name), {key: decode(value) for key, value in parameters.items()}
    part = _build(registered, {k: v for k, v in values.items() if k not in COMMON[registered.kind]}, source)
    return composed(name, part, {k: v for k, v in values.items() if k in COMMON[registered.kind]}, source)


def parts(
    dataset: str, weights_root: str | Path | None, training_seed: int | None, data_root: str | Path | None = None
) -> Parts:
    """Return the builders of the parts of a composition."""
    from defenses.zoo.assembly import Parts
    from defenses.zoo.user_models import load_filter

    def make(role: str, part: Named) -> tuple[Any, Json]:
        if role == "filter" and is_plugin(part.name):
            _check_keys(role, part)
            built = load_filter(part.name, part.params, training_seed)
            source.note(role, part, built)
            return built, {}
        registered = _part_card(role, part)
        values = {k: decode(v) for k, v in registered.merged(dataset, part.params).items()}
        return _build(registered, {k: v for k, v in values.items() if k not in COMMON[registered.kind]}, source), values

    source = Parts(dataset, weights_root, training_seed, data_root, make, load_model)
    return source


def _build(registered: Card, params: JsonView, source: Parts) -> Any:
    """Return what a card's `build` makes of its own parameters."""
    info = dataset_info(source.dataset, root=source.data_root)
    build = load_object(registered.build)
    data = {"num_classes": info.num_classes, "input_shape": info.shape}
    accepted = signature(build).parameters
    try:
        return build(source.trained, **{k: v for k, v in data.items() if k in accepted}, **params)
    except UserError as error:
        raise with_context(registered.name, error) from None
