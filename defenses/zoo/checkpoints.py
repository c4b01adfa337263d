"""Weights on disk: safetensors, with a JSON sidecar of hash, network and recipe.

Torch is imported only with weights, so that their hash is read without it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from defenses.networks.registry import build_network, check_role, deployed, role_of
from defenses.utils.checksums import is_whole, with_checksum
from defenses.utils.errors import UserError
from defenses.utils.files import disk_errors, write_whole
from defenses.utils.json_values import Json, JsonView
from defenses.zoo.cards import card, list_models
from defenses.zoo.checkpoint_checks import check_data, check_trained_on, load_tensors
from defenses.zoo.weight_paths import find_weights, make_again

if TYPE_CHECKING:
    from torch import nn

    from defenses.networks.registry import Role


def read_sidecar(path: Path) -> Json:
    """Return the JSON beside a weights file: sha256, network (kind, args), recipe, metrics.

    Raises:
        UserError: it is missing or damaged.
    """
    side = path.with_suffix(".json")
    try:
        content = json.loads(side.read_text(encoding="utf-8"))
        if not {"sha256", "network"} <= set(content) or not {"kind", "args"} <= set(content["network"]):
            raise ValueError("sha256 or network is missing in it")
        if not is_whole(content):
            raise ValueError("its checksum is wrong")
    except FileNotFoundError:
        raise UserError(f"{side} is missing, the description of {path.name}; {make_again(path)}") from None
    except (ValueError, TypeError, OSError, RecursionError) as error:
        raise UserError(f"{side} cannot be read ({error}); {make_again(path)}") from None
    return dict(content)


def weights_hash(name: str, dataset: str, root: Path | str | None = None, *, training_seed: int | None = None) -> str:
    """Return the SHA-256 of a weights file (hex) from its sidecar; `load_network` checks it against the file.

    Args:
        name: see `find_weights`.
        dataset: see `find_weights`.
        root: see `find_weights`.
        training_seed: see `find_weights`.

    Raises:
        UserError: there are no such weights, or their recipe has another seed.
    """
    path = find_weights(name, dataset, root, training_seed=training_seed)
    side = read_sidecar(path)
    recipe = side.get("recipe")
    seed = recipe.get("seed") if isinstance(recipe, dict) else None
    if training_seed is not None and seed not in (None, training_seed):
        raise UserError(f"{path} was trained with seed {seed}, not {training_seed}; {make_again(path)}")
    return str(side["sha256"])


def save_network(
    path: Path,
    network: nn.Module,
    kind: str,
    args: JsonView,
    recipe: Mapping[str, object],
    *,
    metrics: Mapping[str, object] | None = None,
    half: bool = False,
) -> str:
    """Write weights and their sidecar, each atomically.

    Args:
        path: the file, ending in .safetensors; the sidecar gets the ending .json.
        network: the network.
        kind: its kind, as for `build_network`.
        args: its arguments.
        recipe: of its training (hyper-parameters, seed, steps, versions, seconds).
        metrics: measured numbers.
        half: store float16 (loaded as float32).

    Returns:
        The file's SHA-256.
    """
    import torch
    from safetensors.torch import save

    tensors = {n: v.detach().cpu().contiguous() for n, v in network.state_dict().items() if v.is_floating_point()}
    if half:
        tensors = {n: v.to(torch.float16) for n, v in tensors.items()}
    data = save(tensors)
    sha = hashlib.sha256(data).hexdigest()
    side = {
        "sha256": sha,
        "network": {"kind": kind, "args": dict(args)},
        "recipe": dict(recipe),
        "metrics": dict(metrics or {}),
    }
    remedy = "a training goes on from its checkpoint"
    with disk_errors(path.parent, remedy):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, data, remedy)
    write_whole(path.with_suffix(".json"), json.dumps(with_checksum(side), indent=1, sort_keys=True) + "\n", remedy)
    return sha


def load_network(
    name: str,
    dataset: str,
    *,
    roles: Sequence[Role] = (),
    root: Path | str | None = None,
    training_seed: int | None = None,
    data_root: Path | str | None = None,
) -> nn.Module:
    """Return a trained network, ready for evaluation, on the CPU, in float32.

    Args:
        name: see `find_weights`.
        dataset: see `find_weights`.
        roles: accepted roles of the network; empty: all.
        root: see `find_weights`.
        training_seed: see `find_weights`.
        data_root: folder of data sets; the shapes of `dataset` must be the network's.

    Raises:
        UserError: there are no such weights, or a file is missing, damaged, of another network or of another role.
    """
    path = find_weights(name, dataset, root, training_seed=training_seed)
    side = read_sidecar(path)
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != side["sha256"]:
        raise UserError(f"{path} is damaged (its SHA-256 is not that of its .json); {make_again(path)}")
    if roles:
        check_role(side["network"]["kind"], roles, f"{path} is of network")
    check_trained_on(path, side.get("recipe"), dataset)
    check_data(path, side["network"]["kind"], side["network"]["args"], dataset, data_root)
    network = build_network(side["network"]["kind"], **side["network"]["args"])
    load_tensors(network, data, path)
    return deployed(network)


def check_classifier(
    name: str,
    dataset: str,
    root: Path | str | None = None,
    *,
    training_seed: int | None = None,
    data_root: Path | str | None = None,
) -> None:
    """Refuse to attack a network without classes, as that of a purifier; its weights are not loaded.

    Args:
        name: see `find_weights`.
        dataset: see `find_weights`.
        root: see `find_weights`.
        training_seed: see `find_weights`.
        data_root: folder of data sets.

    Raises:
        UserError: it is no classifier, is of another data set, or has no weights.
    """
    remedy = f'name a classifier of {dataset}, as "undefended"'
    if name in list_models() and card(name).kind != "classifier":
        raise UserError(f'"{name}" is a {card(name).kind}, and a classifier is to be attacked; {remedy}')
    path = find_weights(name, dataset, root, training_seed=training_seed)
    side = read_sidecar(path)
    network = side["network"]
    if role_of(network["kind"]) != "classifier":
        raise UserError(f'"{name}" is a network {network["kind"]}, and a classifier is to be attacked; {remedy}')
    check_trained_on(path, side.get("recipe"), dataset)
    check_data(path, network["kind"], network["args"], dataset, data_root)


def load_classifier(
    name: str,
    dataset: str,
    *,
    root: Path | str | None = None,
    training_seed: int | None = None,
    data_root: Path | str | None = None,
) -> nn.Module:
    """Return a trained classifier to attack; for the arguments see `load_network`.

    Raises:
        UserError: as `check_classifier` and `load_network`.
    """
    check_classifier(name, dataset, root, training_seed=training_seed, data_root=data_root)
    return load_network(name, dataset, root=root, training_seed=training_seed, data_root=data_root)
