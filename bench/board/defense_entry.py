"""Describe the defenses of a board, before anything is run: fingerprint, gradient modes, randomness."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.doctor.examine import require
from bench.spec.cell import DefenseRef
from defenses.utils.errors import UserError, with_context
from defenses.utils.json_values import Json, JsonView
from defenses.utils.names import is_plugin, is_zoo, portable, short_names
from defenses.utils.namespaces import plain_name
from defenses.utils.parameters import canonical, decode
from defenses.utils.plugin_code import code_hash, code_parts
from defenses.zoo.composition import with_user_parts
from defenses.zoo.registry import fingerprint, gradients_of, load_model, named_card

if TYPE_CHECKING:
    from bench.spec.cell import DefenseRef
    from defenses.core.defense import Defense

    Roots = Mapping[str, Path | None]  # arguments `weights_root` and `data_root` of `load_model`


def describe(
    entry: Json,
    dataset: str,
    *,
    weights_root: str | Path | None = None,
    data_root: str | Path | None = None,
) -> DefenseRef:
    """Return a reference to the defense of a board entry.

    Registered defenses are described by their card and the hashes of their weights, without torch, and models of
    RobustBench's zoo by their files; plug-ins and compositions are loaded.

    Args:
        entry: {name, label?, params?, stochastic?, training_seed?}, its keys checked.
        dataset: name or path of the data set.
        weights_root: where weights are looked for first.
        data_root: where data sets lie.

    Raises:
        UserError: unknown name or parameter, weights missing.
    """
    name, seed = entry["name"], entry.get("training_seed")
    label = entry.get("label", *short_names([name]))
    options: Json = {"weights_root": weights_root, "data_root": data_root, "training_seed": seed}
    try:
        params = canonical(entry.get("params", {}))
    except UserError as error:
        raise with_context(str(name), error) from None
    if is_plugin(name):
        stochastic = entry.get("stochastic")
        plugin = load_model(name, dataset, stochastic=stochastic, **options, **decode(params))
        return describe_loaded(plugin, label, name=name, params=params, training_seed=seed)
    if "stochastic" in entry:
        raise UserError(f'"stochastic" (--stochastic) is for modules of your own; leave it out for "{name}"')
    if is_zoo(name):
        require("robustbench")  # a broken library is refused before its list of models is read
        identified = fingerprint(name, dataset, params, **options)
        return DefenseRef(label, name, params, identified, False, ("exact",))
    card = named_card(name)
    if is_loaded(entry):
        composition = load_model(name, dataset, **options, **decode(params))
        return describe_loaded(composition, label, name="", params=params, training_seed=seed)
    identified = fingerprint(name, dataset, params, **options)
    modes = gradients_of(card, dataset, params, weights_root=weights_root, training_seed=seed)
    return DefenseRef(label, name, params, identified, card.random(identified["parameters"]), modes, seed)


def is_loaded(entry: JsonView) -> bool:
    """Return True if a defense is loaded, with torch, before it can be described: a user's own, and a composition.

    Args:
        entry: of a board, with a name.
    """
    params = entry.get("params", {})
    own_classifier = not isinstance(classifier := params.get("classifier", ""), str) or is_plugin(classifier)
    return is_plugin(entry["name"]) or own_classifier or any(params.get(key) for key in ("filters", "detector"))


def describe_loaded(
    defense: Defense,
    label: str | None,
    *,
    name: str,
    params: Json | None = None,
    training_seed: int | None = None,
    resumable: bool = True,
) -> DefenseRef:
    """Return a reference to a defense in memory.

    A registered defense that is unchanged since `load_model` has the fingerprint of its board entry. The fingerprint of
    any other defense is its `defenses.utils.identity.identity` and, for a plug-in, its parameters and a hash of its
    file and of the modules beside it that the file imports; parts that are plug-ins have their hashes too. Where none
    of these covers the defense, the fingerprint has a random number, so that no result is reused wrongly.

    Args:
        defense: the defense.
        label: label for tables; None: its name in the registry, or that of its class.
        name: name of the plug-in; "" for any other defense.
        params: parameters of the plug-in, in canonical form.
        training_seed: seed of the training, for a plug-in with several.
        resumable: True if results are kept, so that another model could reuse them.
    """
    from defenses.utils.identity import Provenance, identity

    state, complete = found = identity(defense)
    origin = vars(defense).get("provenance")
    if isinstance(origin, Provenance) and origin.state == state:
        label = label or origin.name
        properties = defense.stochastic, defense.gradients, origin.training_seed
        has_own = any("state" in part for part in origin.fingerprint.get("around", ()))
        problem = found.problem if has_own else ""
        return DefenseRef(label, origin.name, origin.params, origin.fingerprint, *properties, unidentified=problem)
    code = code_hash(name) if is_plugin(name) else ""
    if not is_plugin(name):  # no list of files says what its code reads
        state, complete = found = identity(defense, follow=True)
    module = type(getattr(defense, "module", defense))
    label, name = label or module.__name__, name or module.__name__
    identified = {
        "name": portable(name),
        "class": f"{plain_name(module.__module__)}.{module.__qualname__}",
        "parameters": params or {},
        "state": state,
        "code": code,
        "stochastic": defense.stochastic,
        "runs": getattr(defense, "runs", None),
    }
    if training_seed is not None:
        identified["training_seed"] = training_seed
    if resumable and not complete and not code:
        identified["nonce"] = secrets.token_hex(8)
    identified = with_user_parts(identified, vars(defense).get("user_parts", ()))
    unidentified = found.problem if code and code_parts(name) else ""
    properties = defense.stochastic, defense.gradients, training_seed
    return DefenseRef(label, name, params or {}, identified, *properties, unidentified=unidentified)


@dataclass(frozen=True)
class Candidate:
    """A defense to audit.

    Args:
        label: its title.
        fingerprint: its fingerprint, in the canonical form of cells.
        load: function that loads it.
        reference: what it was made of; None: it is no defense of a board.
    """

    label: str
    fingerprint: JsonView
    load: Callable[[], Defense]
    reference: DefenseRef | None = None


def candidate(reference: DefenseRef, dataset: str, roots: Roots) -> Candidate:
    """Return the defense of a reference as a candidate.

    Args:
        reference: the reference.
        dataset: name or path of the data set.
        roots: `weights_root` and `data_root` of `load_model`.
    """
    return Candidate(
        reference.title, canonical(reference.fingerprint), lambda: load_reference(reference, dataset, roots), reference
    )


def load_reference(reference: DefenseRef, dataset: str, roots: Roots) -> Defense:
    """Load the defense of a reference; `candidate` has the arguments.

    Raises:
        UserError: the defense cannot be loaded.
    """
    return load_model(
        reference.name,
        dataset,
        training_seed=reference.training_seed,
        stochastic=reference.stochastic,
        **roots,
        **decode(reference.params),
    )
