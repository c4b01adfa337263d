"""Where weights lie, what they may be called, and the command that makes them.

Nothing here imports torch.
"""

from __future__ import annotations

import os
from pathlib import Path

from defenses.utils.errors import UserError
from defenses.utils.names import is_plugin
from defenses.utils.parameters import as_number
from defenses.utils.paths import cache_dir
from defenses.zoo.cards import list_models

_PACKAGED = Path(__file__).parents[1] / "weights"


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
    if is_plugin(name):
        remedy = "name it as the defense, or as the classifier behind a purifier"
        raise UserError(f'"{name}" is no name of weights; {remedy}')
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


def make_again(path: Path) -> str:
    """What a line about a damaged file of weights ends with: the command that makes the file."""
    return f"make it again: {_command(path)}"


def _command(path: Path) -> str:
    """The command that makes weights."""
    name, dot, seed = path.stem.rpartition(".seed")
    plain, more = (name, f" --seed {seed}") if dot and seed.isdecimal() else (path.stem, "")
    what = plain if plain in list_models() else f"RECIPE --name {plain}"
    return f"purebench train {what} --dataset {path.parent.name}{more}"


def check_name(name: str, method: str) -> None:
    """Refuse to call weights what they cannot, or should not, be called.

    Args:
        name: of the weights.
        method: whose recipe they are trained by.

    Raises:
        UserError: no name of a file, or an empty one; a number, or the ending of a seed, which a board would read as
            such; the name of another defense.
    """
    if not name.strip() or not name.isprintable() or name != Path(name).name or name.startswith(".") or "\\" in name:
        raise UserError(f'weights cannot be called "{name}"; the name must be one part of a path, as "pgd-at-long"')
    if as_number(name) is not None or name.rpartition(".seed")[2].isdecimal():
        raise UserError(f'weights cannot be called "{name}", which reads as a number or a seed; put a word to its end')
    if name != method and name in list_models():
        raise UserError(f'weights of {method} cannot be called "{name}", as another defense is; choose another name')
