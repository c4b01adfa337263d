"""Files of weights: folders, names, and the command that makes them. Torch is not imported."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from defenses.data.sources.registry import find_source
from defenses.utils.errors import UserError
from defenses.utils.names import is_plugin
from defenses.utils.parameters import as_number
from defenses.utils.paths import cache_dir, data_root
from defenses.zoo.cards import list_models
from defenses.zoo.hub_weights import folder_at_hand, folder_of, is_on_hub, split_roots

_ONLY_IN_CLONES = ("cifar10",)  # weights that the wheel leaves out
_PACKAGED = Path(__file__).parents[1] / "weights"


def chosen_roots(root: Path | str | None) -> list[Path]:
    """Return the user's folders of weights: `root`, else those that PUREBENCH_WEIGHTS names, apart as in PATH.

    A root may be a repository of the Hugging Face hub, see `defenses.zoo.hub_weights.folder_of`.
    """
    return [folder_of(name) for name in _named(root)]


def _named(root: Path | str | None) -> list[Path | str]:
    return [root] if root else [*split_roots(os.environ.get("PUREBENCH_WEIGHTS", ""))]


def weight_roots(root: Path | str | None) -> list[Path]:
    """Return the folders to search for weights: `chosen_roots`, the package, `cache_dir()`."""
    return [*chosen_roots(root), _PACKAGED, cache_dir()]


def described_roots() -> list[Path]:
    """Return the folders of `weight_roots(None)` at hand, to read what is known of weights that results are of.

    Results are read without their weights: a repository of the hub that cannot be had is left out.
    """
    found = (folder_at_hand(str(name)) for name in _named(None))
    return [*(folder for folder in found if folder), _PACKAGED, cache_dir()]


def seeded(name: str, training_seed: int | None) -> str:
    """Return the name of a network's weights files; those of seed 0 have the network's name alone.

    Raises:
        UserError: the seed is negative.
    """
    if training_seed is not None and training_seed < 0:
        raise UserError(f"the seed of a training is {training_seed}; it must be at least 0")
    return f"{name}.seed{training_seed}" if training_seed else name


def find_weights(name: str, dataset: str, root: Path | str | None = None, *, training_seed: int | None = None) -> Path:
    """Return the weights file of a network trained on a data set.

    Looks for <folder>/<dataset>/<name>.safetensors (of seed 1: <name>.seed1.safetensors) in `root` (or the folders
    that PUREBENCH_WEIGHTS names), then in the package, then in `cache_dir()`.

    Args:
        name: "undefended", "pgd-at", "adp", "ebm-mcmc", or a user-chosen name.
        dataset: name of the data set.
        root: folder to look in first, or a repository of the hub, as hf:owner/repository@revision.
        training_seed: of the training; None: the weights with the network's name alone.

    Raises:
        UserError: there are no such weights, or no such data set.
    """
    places = _places(name, dataset, root, training_seed)
    for path in places:
        if path.is_file():
            return path
    if is_plugin(name):
        remedy = "name it as the defense, or as the classifier behind a purifier"
        raise UserError(f'"{name}" is no name of weights; {remedy}')
    if re.fullmatch(r"[\w-]+", dataset):  # no file, folder or function
        find_source(dataset, data_root())  # refuses an unknown data set
    where = ", ".join(str(p.parent) for p in places)
    which = f" with training seed {training_seed}" if training_seed is not None else ""
    remedy = f"make them: {_command(places[0])}"
    if dataset in _ONLY_IN_CLONES:
        remedy += ", or name a clone's with --weights-root CLONE/defenses/weights, or a repository of the hub"
    raise UserError(f'no weights of "{name}"{which} for "{dataset}" (looked in {where}); {remedy}')


def _places(name: str, dataset: str, root: Path | str | None, training_seed: int | None) -> list[Path]:
    return [folder / dataset / f"{seeded(name, training_seed)}.safetensors" for folder in weight_roots(root)]


def has_weights(name: str, dataset: str, root: Path | str | None = None, *, training_seed: int | None = None) -> bool:
    """Return True if there are weights of a name; for the arguments see `find_weights`."""
    return any(path.is_file() for path in _places(name, dataset, root, training_seed))


def shipped(networks: Callable[[str], Iterable[str]]) -> list[str]:
    """Return the data sets for which all weights of a defense come with the package.

    Args:
        networks: from the name of a data set to the names of the weights.
    """
    folders = sorted(path for path in _PACKAGED.iterdir() if path.is_dir())
    return [
        folder.name
        for folder in folders
        if all((folder / f"{name}.safetensors").is_file() for name in networks(folder.name))
    ]


def folder_beside(weights: Path, root: Path | str | None, what: str, option: str = "--weights-root") -> Path:
    """Return the folder of weights, to keep a file there.

    Args:
        weights: from `find_weights`.
        root: as there.
        what: the file, for the message.
        option: of the command that names `root`, for the message.

    Raises:
        UserError: it is the copy of a repository of the hub, or `root` names one.
    """
    for name in filter(is_on_hub, _named(root)):
        if root or weights.is_relative_to(folder_of(name)):
            raise UserError(f"{what} is kept beside the weights, not in {name}; name a copy of it with {option}")
    return weights.parent


def make_again(path: Path) -> str:
    """Return the end of a message on damaged weights: the command that makes them."""
    return f"make it again: {_command(path)}"


def _command(path: Path) -> str:
    """Return the command that makes weights."""
    name, dot, seed = path.stem.rpartition(".seed")
    network, option = (name, f" --seed {seed}") if dot and seed.isdecimal() else (path.stem, "")
    target = network if network in list_models() else f"RECIPE --name {network}"
    return f"purebench train {target} --dataset {path.parent.name}{option}"


def check_name(name: str, method: str) -> None:
    """Refuse names that weights cannot or should not have.

    Args:
        name: of the weights.
        method: of the recipe of their training.

    Raises:
        UserError: no file name, or an empty one; a number or the ending of a seed, which boards would read as such;
            the name of another defense.
    """
    if not name.strip() or not name.isprintable() or name != Path(name).name or name.startswith(".") or "\\" in name:
        raise UserError(f'weights cannot be called "{name}"; the name must be one part of a path, as "pgd-at-long"')
    if as_number(name) is not None or name.rpartition(".seed")[2].isdecimal():
        raise UserError(f'weights cannot be called "{name}", which reads as a number or a seed; put a word to its end')
    if name != method and name in list_models():
        raise UserError(f'weights of {method} cannot be called "{name}", as another defense is; choose another name')
