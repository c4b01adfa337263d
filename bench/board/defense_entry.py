"""What a board needs to know of a defense before anything is run: its fingerprint, and whether it is random."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.doctor.examine import require
from bench.spec.cell import DefenseRef
from defenses.utils.errors import UserError, with_context
from defenses.utils.names import is_plugin, is_zoo, portable
from defenses.utils.parameters import canonical, decode
from defenses.zoo.composition import with_own
from defenses.zoo.registry import fingerprint, load_model, named_card

if TYPE_CHECKING:
    from bench.spec.cell import DefenseRef
    from defenses.core.defense import Defense

    Roots = Mapping[str, Path | None]  # `weights_root` and `data_root` of `load_model`


def describe(
    entry: dict[str, Any],
    dataset: str,
    *,
    weights_root: str | Path | None = None,
    data_root: str | Path | None = None,
) -> DefenseRef:
    """A reference to the defense of a board entry {name, label?, params?, training_seed?}.

    Registered defenses are described by their card and the hashes of their weights, without torch, and models of
    RobustBench's zoo by their files; a plug-in and a composition are loaded to see what they are.

    Raises:
        UserError: unknown name or parameter, weights missing.
    """
    if "name" not in entry:
        raise UserError('a [[defense]] has no name; write name = "adp"')
    name, seed = entry["name"], entry.get("training_seed")
    label = entry.get("label", name)
    asked: dict[str, Any] = {"weights_root": weights_root, "data_root": data_root, "training_seed": seed}
    try:
        given = canonical(entry.get("params", {}))
    except UserError as error:
        raise with_context(str(name), error) from None
    if is_plugin(name):
        plugin = _plugin(name, dataset, given, entry, asked)
        return describe_loaded(plugin, label, name=name, given=given, training_seed=seed)
    if "stochastic" in entry:
        raise UserError(f'"stochastic" (--stochastic) is for modules of your own; leave it out for "{name}"')
    if is_zoo(name):
        require("robustbench")  # a broken library is refused before its list of models is read
        identified = fingerprint(name, dataset, given, **asked)
        return DefenseRef(label, name, given, identified, False, ("exact",))
    known = named_card(name)
    if any(given.get(key) for key in ("filters", "detector")) or _loads(given.get("classifier", "")):
        made = load_model(name, dataset, **asked, **decode(given))
        return describe_loaded(made, label, name="", given=given, training_seed=seed)
    identified = fingerprint(name, dataset, given, **asked)
    return DefenseRef(label, name, given, identified, known.random(identified["parameters"]), known.gradients, seed)


def _loads(classifier: Any) -> bool:
    """Whether a classifier with parameters, or of somebody's own, is named: no card tells what that is."""
    return not isinstance(classifier, str) or is_plugin(classifier)


def _plugin(name: str, dataset: str, given: dict[str, Any], entry: dict[str, Any], asked: dict[str, Any]) -> Defense:
    from defenses.core.defense import Foreign

    stochastic = entry.get("stochastic")
    defense = load_model(name, dataset, **asked, **decode(given))
    if isinstance(defense, Foreign):
        defense.stochastic = bool(stochastic)
    elif stochastic is not None:
        raise UserError(
            f'"{name}" is a Defense and says itself whether it is stochastic; leave "stochastic" (--stochastic) out'
        )
    return defense


def describe_loaded(
    defense: Defense,
    label: str | None,
    *,
    name: str,
    given: dict[str, Any] | None = None,
    training_seed: int | None = None,
    resumable: bool = True,
) -> DefenseRef:
    """A reference to a defense in memory.

    A registered defense that is as `load_model` gave it has the fingerprint that boards give it. Of any other, the
    fingerprint is its `defenses.utils.identity.identity` and, for a plug-in, its parameters and a hash of its file and
    of the modules in the same folder that this imports; its parts that are plug-ins have hashes of their own. Whatever
    none of them covers makes results not resumable: a random number goes into the fingerprint then, so that nothing is
    reused wrongly.

    Args:
        defense: the defense.
        label: for tables; None: its name in the registry, or that of its class.
        name: the plug-in that it is; "" when it was made otherwise.
        given: its parameters, in canonical form.
        training_seed: of a plug-in that is asked for several.
        resumable: whether results are kept, so that they could be taken for those of another model.
    """
    from defenses.utils.identity import Provenance, identity
    from defenses.utils.plugins import code_hash

    state, complete = identity(defense)
    known = vars(defense).get("provenance")
    if isinstance(known, Provenance) and known.state == state:
        label = label or known.name
        own = defense.stochastic, defense.gradients, known.training_seed
        return DefenseRef(label, known.name, known.given, known.fingerprint, *own)
    code = code_hash(name) if is_plugin(name) else ""
    module = type(getattr(defense, "module", defense))
    label, name = label or module.__name__, name or module.__name__
    identified = {
        "name": portable(name),
        "class": f"{module.__module__}.{module.__qualname__}",
        "parameters": given or {},
        "state": state,
        "code": code,
        "stochastic": defense.stochastic,
        "runs": getattr(defense, "runs", None),
    }
    if training_seed is not None:
        identified["training_seed"] = training_seed
    if resumable and not complete and not code:
        identified["nonce"] = secrets.token_hex(8)
    identified = with_own(identified, vars(defense).get("own_parts", ()))
    return DefenseRef(label, name, given or {}, identified, defense.stochastic, defense.gradients, training_seed)


@dataclass(frozen=True)
class Candidate:
    """A defense to audit: its label, its fingerprint as cells have it, and what loads it."""

    label: str
    fingerprint: Mapping[str, Any]
    load: Callable[[], Defense]


def candidate(reference: DefenseRef, dataset: str, roots: Roots) -> Candidate:
    """The defense that a reference is of."""

    def load() -> Defense:
        from defenses.core.defense import Foreign

        given, seed = decode(reference.given), reference.training_seed
        defense = load_model(reference.name, dataset, training_seed=seed, **roots, **given)
        if isinstance(defense, Foreign):
            defense.stochastic = reference.stochastic
        return defense

    return Candidate(reference.title, canonical(reference.fingerprint), load)
