"""What a board needs to know of a defense before anything is run: its fingerprint, and whether it is random."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cell import DefenseRef, portable
from defenses.errors import UserError
from defenses.registry import canonical, card, is_plugin, plugin_source

if TYPE_CHECKING:
    from defenses.base import Defense


def describe(entry: dict[str, Any], dataset: str, *, weights_root: str | Path | None = None) -> DefenseRef:
    """A reference to the defense of a board entry {name, label?, params?}.

    Registered defenses are described by their card and the hashes of their weights, without torch; a plug-in is
    loaded to see what it is.

    Raises:
        UserError: unknown name or parameter, weights missing.
    """
    if "name" not in entry:
        raise UserError('a [[defense]] has no name; write name = "adp"')
    name, given = entry["name"], canonical(entry.get("params", {}))
    label = entry.get("label", name)
    if is_plugin(name):
        return _describe_plugin(name, label, given, bool(entry.get("stochastic", False)))
    if "stochastic" in entry:
        raise UserError(f'"stochastic" is for modules of your own; leave it out for "{name}"')
    from defenses.weights_io import weights_hash

    known = card(name)
    merged = known.merged(dataset, given)
    fingerprint = {
        "name": name,
        "version": known.version,
        "parameters": merged,
        "weights": {n: weights_hash(n, dataset, root=weights_root) for n in known.networks(merged)},
    }
    return DefenseRef(label, name, given, fingerprint, known.stochastic, known.gradients)


def _describe_plugin(name: str, label: str, given: dict[str, Any], stochastic: bool) -> DefenseRef:
    from defenses.base import Foreign
    from defenses.registry import decode, load_model

    defense = load_model(name, **decode(given))
    if isinstance(defense, Foreign):
        defense.stochastic = stochastic
    source = plugin_source(name)
    code = hashlib.sha256(source.read_bytes()).hexdigest() if source is not None and source.is_file() else ""
    return describe_loaded(defense, label, name=name, given=given, code=code)


def describe_loaded(
    defense: Defense, label: str, *, name: str, given: dict[str, Any] | None = None, code: str = ""
) -> DefenseRef:
    """A reference to a defense in memory; its fingerprint hashes every parameter and buffer.

    Args:
        defense: the defense.
        label: for tables.
        name: what it is called.
        given: its parameters, in canonical form.
        code: a hash of its source, where there is one.
    """
    digest = hashlib.sha256()
    for key, tensor in sorted(defense.state_dict().items()):
        digest.update(f"{key}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().numpy().tobytes())
    module = type(getattr(defense, "module", defense))
    fingerprint = {
        "name": portable(name),
        "class": f"{module.__module__}.{module.__qualname__}",
        "parameters": given or {},
        "state": digest.hexdigest(),
        "code": code,
        "stochastic": defense.stochastic,
    }
    return DefenseRef(label, name, given or {}, fingerprint, defense.stochastic, defense.gradients)
