"""Where images come from: one module per kind of data set, each with `find(name, root) -> Source | None`.

Nothing here imports torch until images are loaded: `purebench plan` asks for information alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from defenses.data.sources import corrupted, published
from defenses.data.sources import huggingface as hub
from defenses.data.sources import image_folder as folder
from defenses.data.sources import robustbench as robust
from defenses.data.sources import user_function as own
from defenses.data.sources.base import DatasetInfo, Source
from defenses.data.sources.registry import files
from defenses.utils.errors import unknown

__all__ = ["FORMS", "DatasetInfo", "Source", "find_source"]

FORMS = (*published.NAMES, *robust.FORMS, corrupted.FORM, files.FORM, folder.FORM, hub.FORM, own.FORM)  # for people
_KINDS: tuple[Callable[[str, Path], Source | None], ...] = (
    published.find,
    robust.find,
    corrupted.find,
    files.find,
    folder.find,
    hub.find,
    own.find,
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
    for find in _KINDS:
        if found := find(name, root):
            return found
    raise unknown("data set", name, FORMS)
