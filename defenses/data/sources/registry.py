"""Sources by name: one module for each kind of data set, each with `find(name, root) -> DataSource | None`.

Torch is imported only when images are loaded, since `purebench plan` needs descriptions alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from defenses.data.sources import corrupted, huggingface, image_folder, npz, published, robustbench, user_function
from defenses.data.sources.base import DatasetInfo, DataSource
from defenses.utils.errors import unknown

__all__ = ["FORMS", "DataSource", "DatasetInfo", "find_source"]

FORMS = (
    *published.NAMES,
    *robustbench.FORMS,
    corrupted.FORM,
    npz.FORM,
    image_folder.FORM,
    huggingface.FORM,
    user_function.FORM,
)  # for messages
_KINDS: tuple[Callable[[str, Path], DataSource | None], ...] = (
    published.find,
    robustbench.find,
    npz.find,
    image_folder.find,
    huggingface.find,
    user_function.find,
)


def clean_name(name: str) -> str:
    """Return the data set that a corrupted one is made of, for which defenses are trained; else the name.

    Args:
        name: "corrupted:digits/contrast/3", "cifar10-c/fog/5"...
    """
    if parts := corrupted.parts_of(name):
        return parts[0]
    kind = name.partition("/")[0]
    return kind.removesuffix("-c") if kind in ("cifar10-c", "cifar100-c") else name


def find_source(name: str, root: Path) -> DataSource:
    """Return the source of a data set.

    Args:
        name: see `defenses.data.dataset.load_dataset`.
        root: folder of data sets.

    Raises:
        UserError: unknown name, or files that are missing or damaged.
    """
    if corruption := corrupted.find(name, root, find_source):
        return corruption
    for find in _KINDS:
        if source := find(name, root):
            return source
    raise unknown("data set", name, FORMS)
