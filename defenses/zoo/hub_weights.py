"""Folders of weights in repositories of the Hugging Face hub. Without torch; the hub is asked only for such folders."""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path

from defenses.utils.errors import UserError

FORM = "hf:owner/repository[@revision]"
_FILES = ("*/*.safetensors", "*/*.json")


def folder_of(root: Path | str) -> Path:
    """Return a folder of weights: `root` itself, or of a repository of the hub the copy in the hub's own cache.

    The repository has the files that `purebench train --out` writes, <dataset>/<name>.safetensors and .json; nothing
    else of it is downloaded, and no code of it is run.

    Args:
        root: a folder, or "hf:owner/repository[@revision]".

    Raises:
        UserError: no such repository, or neither a network nor an earlier copy.
    """
    return _copy(str(root)) if is_on_hub(root) else Path(root)


@functools.cache
def folder_at_hand(root: str) -> Path | None:
    """Return `folder_of(root)`; None if it cannot be had, without another try: a missing network takes long."""
    try:
        return folder_of(root)
    except UserError:
        return None


def is_on_hub(root: Path | str | None) -> bool:
    """Return True if a folder of weights is a repository of the hub."""
    return str(root).startswith("hf:")


def split_roots(text: str) -> list[str]:
    """Return the folders of a list as PUREBENCH_WEIGHTS has it, apart as in PATH; hf:owner/repository is one."""
    return [part for part in re.split(rf"(?<!^hf)(?<![{os.pathsep}]hf){re.escape(os.pathsep)}", text) if part]


@functools.cache
def _copy(name: str) -> Path:
    """Return the copy of a repository."""
    found = re.fullmatch(r"hf:([^/@]+/[^/@]+)(?:@([^@]+))?", name)
    if found is None:
        raise UserError(f"{name} names no repository of weights; write {FORM}")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise UserError(f"{name} needs the library huggingface_hub; install it: pip install huggingface_hub") from None
    try:
        folder = Path(snapshot_download(found[1], revision=found[2], allow_patterns=list(_FILES)))
    except Exception as error:  # of the network, the file system, or the library's cache
        reason = " ".join(str(error).split())[:200]
        remedy = "name a repository that is there, with a network or after an earlier download"
        raise UserError(f"{name} cannot be read ({type(error).__name__}: {reason}); {remedy}") from None
    if not any(folder.glob(_FILES[0])):
        raise UserError(f"{name} has no <dataset>/<name>.safetensors; put there what purebench train --out writes")
    return folder
