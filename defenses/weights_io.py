"""Weights on disk: safetensors, and beside them a JSON file with their hash, network and recipe.

Nothing here imports torch at module level: the hash of a defense's weights is read without it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defenses.catalogue import card, list_models
from defenses.errors import UserError
from defenses.files import disk_errors, write_whole
from defenses.seal import is_whole, sealed
from defenses.values import as_number

if TYPE_CHECKING:
    from torch import Tensor, nn

    from defenses.networks import Role

_PACKAGED = Path(__file__).parent / "weights"


def cache_dir() -> Path:
    """Where `purebench train` puts weights unless told otherwise: ~/.cache/purebench/weights."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "purebench" / "weights"


def weight_roots(root: Path | str | None) -> list[Path]:
    """The folders where weights are looked for: `root` or PUREBENCH_WEIGHTS, the package, `cache_dir()`."""
    own = root or os.environ.get("PUREBENCH_WEIGHTS")
    return [*([Path(own)] if own else []), _PACKAGED, cache_dir()]


def seeded(name: str, training_seed: int | None) -> str:
    """What the files of a network's weights are called: those of seed 0 by the network's name alone.

    Raises:
        UserError: the seed is below 0.
    """
    if training_seed is not None and training_seed < 0:
        raise UserError(f"the seed of a training is {training_seed}; it must be at least 0")
    return f"{name}.seed{training_seed}" if training_seed else name


def find_weights(name: str, dataset: str, root: Path | str | None = None, *, training_seed: int | None = None) -> Path:
    """The weights file of a network trained on a data set.

    Looks for <folder>/<dataset>/<name>.safetensors (of seed 1: <name>.seed1.safetensors) in `root` (or the folder
    PUREBENCH_WEIGHTS names), then in the package, then in `cache_dir()`.

    Args:
        name: "undefended", "pgd-at", "adp", "ebm-mcmc", or the name of your own.
        dataset: name of the data set.
        root: folder to look in first.
        training_seed: of the training; None: whatever has the network's name alone.

    Raises:
        UserError: there are none.
    """
    places = _places(name, dataset, root, training_seed)
    for path in places:
        if path.is_file():
            return path
    where = ", ".join(str(p.parent) for p in places)
    which = f" with training seed {training_seed}" if training_seed is not None else ""
    raise UserError(
        f'no weights of "{name}"{which} for "{dataset}" (looked in {where}); make them: {_command(places[0])}'
    )


def _places(name: str, dataset: str, root: Path | str | None, training_seed: int | None) -> list[Path]:
    return [folder / dataset / f"{seeded(name, training_seed)}.safetensors" for folder in weight_roots(root)]


def has_weights(name: str, dataset: str, root: Path | str | None = None, *, training_seed: int | None = None) -> bool:
    """Whether there are weights of a name; for the arguments see `find_weights`."""
    return any(path.is_file() for path in _places(name, dataset, root, training_seed))


def read_sidecar(path: Path) -> dict[str, Any]:
    """The JSON beside a weights file: sha256, network (kind, args), recipe, metrics.

    Raises:
        UserError: missing or damaged.
    """
    side = path.with_suffix(".json")
    try:
        content = json.loads(side.read_text(encoding="utf-8"))
        if not {"sha256", "network"} <= set(content) or not {"kind", "args"} <= set(content["network"]):
            raise ValueError("sha256 or network is missing in it")
        if not is_whole(content):
            raise ValueError("its checksum is wrong")
    except FileNotFoundError:
        raise UserError(f"{side} is missing, the description of {path.name}; {_remedy(path)}") from None
    except (ValueError, TypeError, OSError, RecursionError) as error:
        raise UserError(f"{side} cannot be read ({error}); {_remedy(path)}") from None
    return dict(content)


def _remedy(path: Path) -> str:
    return f"make it again: {_command(path)}"


def _command(path: Path) -> str:
    """The command that makes weights."""
    name, dot, seed = path.stem.rpartition(".seed")
    plain, more = (name, f" --seed {seed}") if dot and seed.isdecimal() else (path.stem, "")
    what = plain if plain in list_models() else f"RECIPE --name {plain}"
    return f"purebench train {what} --dataset {path.parent.name}{more}"


def weights_hash(name: str, dataset: str, root: Path | str | None = None, *, training_seed: int | None = None) -> str:
    """SHA-256 of a weights file (hex), as its sidecar states it; `load_network` checks it against the file.

    Args:
        name: see `find_weights`.
        dataset: see `find_weights`.
        root: see `find_weights`.
        training_seed: see `find_weights`.

    Raises:
        UserError: there are none, or their recipe says another seed.
    """
    path = find_weights(name, dataset, root, training_seed=training_seed)
    side = read_sidecar(path)
    recipe = side.get("recipe")
    said = recipe.get("seed") if isinstance(recipe, dict) else None
    if training_seed is not None and said not in (None, training_seed):
        raise UserError(f"{path} was trained with seed {said}, not {training_seed}; {_remedy(path)}")
    return str(side["sha256"])


def save_network(
    path: Path,
    network: nn.Module,
    kind: str,
    args: Mapping[str, Any],
    recipe: Mapping[str, Any],
    *,
    metrics: Mapping[str, Any] | None = None,
    half: bool = False,
) -> str:
    """Write weights and their sidecar, each in one move.

    Args:
        path: the file, ending in .safetensors; the sidecar gets the ending .json.
        network: the network.
        kind: its kind, as `build_network` takes it.
        args: its arguments.
        recipe: how it was made (hyper-parameters, seed, steps, versions, seconds).
        metrics: measured numbers.
        half: store float16 (loaded as float32).

    Returns:
        The file's SHA-256.
    """
    import torch
    from safetensors.torch import save

    kept = {n: v.detach().cpu().contiguous() for n, v in network.state_dict().items() if v.is_floating_point()}
    if half:
        kept = {n: v.to(torch.float16) for n, v in kept.items()}
    data = save(kept)
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
    write_whole(path.with_suffix(".json"), json.dumps(sealed(side), indent=1, sort_keys=True) + "\n", remedy)
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
    """A trained network, ready to be evaluated (see `networks.deployed`), on the CPU, in float32.

    Args:
        name: see `find_weights`.
        dataset: see `find_weights`.
        roles: any of which will do; none: all.
        root: see `find_weights`.
        training_seed: see `find_weights`.
        data_root: where data sets lie, whose shapes must be the network's.

    Raises:
        UserError: no such weights; or a file is missing, damaged, not of this network or of another role.
    """
    from defenses.networks import build_network, check_role, deployed

    path = find_weights(name, dataset, root, training_seed=training_seed)
    side = read_sidecar(path)
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != side["sha256"]:
        raise UserError(f"{path} is damaged (its SHA-256 is not that of its .json); {_remedy(path)}")
    if roles:
        check_role(side["network"]["kind"], roles, f"{path} is of network")
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
    """Refuse to attack a network that gives no classes, as that of a purifier; its weights are not loaded.

    Args:
        name: see `find_weights`.
        dataset: see `find_weights`.
        root: see `find_weights`.
        training_seed: see `find_weights`.
        data_root: where data sets lie.

    Raises:
        UserError: it gives none, is of another data set, or has no weights.
    """
    from defenses.networks import role_of

    remedy = f'name a classifier of {dataset}, as "undefended"'
    if name in list_models() and card(name).kind != "classifier":
        raise UserError(f'"{name}" is a {card(name).kind}, and a classifier is to be attacked; {remedy}')
    path = find_weights(name, dataset, root, training_seed=training_seed)
    network = read_sidecar(path)["network"]
    if role_of(network["kind"]) != "classifier":
        raise UserError(f'"{name}" is a network {network["kind"]}, and a classifier is to be attacked; {remedy}')
    check_data(path, network["kind"], network["args"], dataset, data_root)


def load_classifier(
    name: str,
    dataset: str,
    *,
    root: Path | str | None = None,
    training_seed: int | None = None,
    data_root: Path | str | None = None,
) -> nn.Module:
    """A trained network that is to be attacked, as `load_network` gives it.

    Raises:
        UserError: as `check_classifier` and `load_network`.
    """
    check_classifier(name, dataset, root, training_seed=training_seed, data_root=data_root)
    return load_network(name, dataset, root=root, training_seed=training_seed, data_root=data_root)


def check_name(name: str, method: str) -> None:
    """Refuse to call weights what they cannot, or should not, be called.

    Args:
        name: of the weights.
        method: whose recipe they are trained by.

    Raises:
        UserError: no name of a file; a number, or the ending of a seed, which a board would read as such; the name of
            another defense.
    """
    if not name.isprintable() or name != Path(name).name or name.startswith(".") or "\\" in name:
        raise UserError(f'weights cannot be called "{name}"; the name must be one part of a path, as "pgd-at-long"')
    if as_number(name) is not None or name.rpartition(".seed")[2].isdecimal():
        raise UserError(f'weights cannot be called "{name}", which reads as a number or a seed; put a word to its end')
    if name != method and name in list_models():
        raise UserError(f'weights of {method} cannot be called "{name}", as another defense is; choose another name')


def check_data(
    path: Path, kind: str, args: Mapping[str, Any], dataset: str, data_root: Path | str | None = None
) -> None:
    """Refuse a network for images or classes of another data set.

    Args:
        path: the file it is from, for messages.
        kind: of network.
        args: its arguments.
        dataset: name of the data set.
        data_root: where data sets lie.

    Raises:
        UserError: channels, size or classes differ.
    """
    from bench.data import dataset_info
    from defenses.networks import data_args

    info = dataset_info(dataset, root=data_root)
    for name, wanted in data_args(kind, info.shape, info.num_classes).items():
        if (given := args.get(name, wanted)) != wanted:
            raise UserError(f"{path} is of another data set: its {name} is {given}, and {dataset} has {wanted}")


def load_tensors(network: nn.Module, data: bytes, path: Path) -> None:
    """Put the tensors of a safetensors file into a network; names and shapes must agree.

    Args:
        network: the network, changed in place.
        data: content of the file.
        path: its name, for messages.

    Raises:
        UserError: it is no safetensors file, or a tensor is missing, unknown or of another shape.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        given = load(data)
    except SafetensorError as error:
        raise UserError(f"{path} is no safetensors file ({error})") from None
    put_tensors(network, given, path)


def put_tensors(network: nn.Module, given: Mapping[str, Tensor], path: Path) -> None:
    """Put tensors into a network; names and shapes must agree.

    Args:
        network: the network, changed in place.
        given: the tensors by name.
        path: the file they are from, for messages.

    Raises:
        UserError: a tensor is missing, unknown, of another shape or not finite.
    """
    wanted = check_tensors(network, given, path)
    for name, value in given.items():
        if not bool(value.isfinite().all()):
            raise UserError(f'{path}: tensor "{name}" has values that are not finite')
    network.load_state_dict({n: given[n].to(v.dtype) for n, v in wanted.items()}, strict=False)


def check_tensors(network: nn.Module, given: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Refuse tensors that are not those of a network; for arguments and errors see `put_tensors`.

    Returns:
        The network's own.
    """
    # Counters of batch norm, the only integers, play no part in evaluation and are not stored.
    wanted = {n: v for n, v in network.state_dict().items() if v.is_floating_point()}
    for name in sorted(wanted.keys() | given.keys()):
        problem = _mismatch(name, wanted, given)
        if problem:
            raise UserError(f"{path} does not fit the network: {problem}")
    return wanted


def _mismatch(name: str, wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str | None:
    if name not in given:
        return f'tensor "{name}" is missing'
    if name not in wanted:
        return f'it has a tensor "{name}" that the network has not' if given[name].is_floating_point() else None
    if given[name].shape != wanted[name].shape:
        return f'tensor "{name}" is {list(given[name].shape)}, not {list(wanted[name].shape)}'
    return None
