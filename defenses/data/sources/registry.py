"""Where images come from: one module per kind of data set, each with `find(name, root) -> Source | None`.

Nothing here imports torch until images are loaded: `purebench plan` asks for information alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from defenses.data.sources import corrupted, huggingface, image_folder, npz, published, robustbench, user_function
from defenses.data.sources.base import DatasetInfo, Source
from defenses.utils.errors import unknown

__all__ = ["FORMS", "DatasetInfo", "Source", "find_source"]

FORMS = (
    *published.NAMES,
    *robustbench.FORMS,
    corrupted.FORM,
    npz.FORM,
    image_folder.FORM,
    huggingface.FORM,
    user_function.FORM,
)  # for people
_KINDS: tuple[Callable[[str, Path], Source | None], ...] = (
    published.find,
    robustbench.find,
    npz.find,
    image_folder.find,
    huggingface.find,
    user_function.find,
)


def clean_name(name: str) -> str:
    """The data set that a corrupted one is made of, for which defenses are trained; any other name as it is.

    Args:
        name: "corrupted:digits/contrast/3", "cifar10-c/fog/5"...
    """
    if parts := corrupted.parts_of(name):
        return parts[0]
    kind = name.partition("/")[0]
    return kind.removesuffix("-c") if kind in ("cifar10-c", "cifar100-c") else name


def find_source(name: str, root: Path) -> Source:
    """The source that a data set's name stands for.

    Args:
        name: see `defenses.data.dataset.load_dataset`.
        root: where data sets lie.

    Raises:
        UserError: no kind knows the name, or what it names is missing or damaged.
    """
    if found := corrupted.find(name, root, find_source):
        return found
    for find in _KINDS:
        if source := find(name, root):
            return source
    raise unknown("data set", name, FORMS)
