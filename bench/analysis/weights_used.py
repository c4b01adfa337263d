"""Names of the weights that a row of a results folder used, from the fingerprint in its manifest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from defenses.utils.errors import UserError
from defenses.utils.names import is_zoo
from defenses.zoo.checkpoints import read_sidecar
from defenses.zoo.weight_paths import described_roots, seeded


@dataclass(frozen=True)
class WeightsUsed:
    """Weights of a defense, as far as they have a published name.

    Args:
        networks: for each network every name of its weights, as "sha256:<hex>" of the file, of the published file that
            was imported, or "robustbench:<dataset>/<threat model>/<id>"; empty where the weights are not known, as of
            a user's own module.
        own: True if none of them was published: all were trained by `purebench train`.
    """

    networks: tuple[frozenset[str], ...] = ()
    own: bool = False

    def are(self, names: tuple[str, ...]) -> bool:
        """Return True if the weights are exactly those of some names."""
        every = frozenset().union(*self.networks)
        return bool(names) and every.issuperset(names) and all(not used.isdisjoint(names) for used in self.networks)


def weights_used(fingerprint: Mapping[str, Any], dataset: str) -> WeightsUsed:
    """Return the weights of a defense and its parts.

    Args:
        fingerprint: of the defense, as the manifest of a results folder has it.
        dataset: name of the data set.
    """
    networks, own, seed = [], True, fingerprint.get("training_seed")
    for part in (fingerprint, *fingerprint.get("around", ())):
        hashes = part.get("weights")
        if hashes is None or "state" in part:
            return WeightsUsed()  # a user's own module
        if is_zoo(part["name"]):
            zoo = f"robustbench:{part['dataset']}/{part['threat_model']}/{part['name'].partition(':')[2]}"
            networks.append(frozenset({zoo, *(f"sha256:{sha}" for sha in hashes.values())}))
            own = False
            continue
        for name, sha in hashes.items():
            imported = _imported(seeded(name, seed), sha, dataset)
            networks.append(frozenset({f"sha256:{sha}", *imported}))
            own = own and not imported
    return WeightsUsed(tuple(dict.fromkeys(networks)), own and bool(networks))


def name_and_weights(fingerprints: Iterable[Mapping[str, Any]], dataset: str) -> tuple[str, WeightsUsed]:
    """Return the columns "name" and "weights" of a defense, see `measured_rows`.

    Args:
        fingerprints: of the defense, one for each training seed.
        dataset: name of the data set.
    """
    trained = list(fingerprints)
    if not trained:
        return "", WeightsUsed()
    used = [weights_used(f, dataset) for f in trained]
    has_detector = any(part.get("role") == "detector" for part in trained[0].get("around", ()))
    name = "" if has_detector else str(trained[0].get("name", ""))
    return name, used[0] if len(used) == 1 else WeightsUsed(own=all(u.own for u in used))


def _imported(file: str, sha: str, dataset: str) -> list[str]:
    """Return the hash of the published file that weights were imported from, while their sidecar is there."""
    for folder in described_roots():
        with suppress(UserError):
            side = read_sidecar(folder / dataset / f"{file}.safetensors")
            recipe = side.get("recipe")
            imported = recipe.get("imported") if isinstance(recipe, dict) else None
            if side["sha256"] == sha and isinstance(imported, dict):
                return [f"sha256:{imported.get('file_sha256')}"]
    return []
