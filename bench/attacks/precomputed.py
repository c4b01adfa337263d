"""Adversarial images that somebody else made, as an attack: "given:path". What runs is a look into the file."""

from __future__ import annotations

import hashlib
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.attacks.base import Attack
from bench.attacks.budgets import check_params
from defenses.utils.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from bench.attacks.precomputed_files import PrecomputedImages


def names() -> list[str]:
    """None: files have no list."""
    return []


def find(local: str, params: dict[str, Any]) -> Attack:
    """See `registry.find_attack`. The file is described at `precomputed_files.read_given`, and needs an array `index`.

    The parameter `minimisation = true` says that images may lie outside the ball; they do not count then.
    """
    name, path = f"given:{local}", Path(local).expanduser()
    check_params(name, params, ("minimisation",))
    if not path.is_file():
        raise UserError(f"{name}: there is no file {path}")
    stat = path.stat()
    return Attack(
        name=name,
        run=partial(_run, path),
        minimisation=params.get("minimisation", False) is True,
        version=f"sha256 {_sha(path, stat.st_mtime_ns, stat.st_size)[:32]}",
    )


@lru_cache(maxsize=64)
def _sha(path: Path, time: int, size: int) -> str:  # noqa: ARG001
    return hashlib.sha256(path.read_bytes()).hexdigest()


@lru_cache(maxsize=2)
def _read(path: Path, time: int) -> tuple[PrecomputedImages, dict[int, int]]:  # noqa: ARG001
    from bench.attacks.precomputed_files import read_given

    held = read_given(path)
    if len(held) > 1:
        raise ValueError(f"{path} holds the images of {len(held)} attacks; an attack is one")
    if held[0].index is None:
        raise ValueError(f"{path} has no array index, which says which images of the data set they are")
    return held[0], {int(i): row for row, i in enumerate(held[0].index)}


def _run(path: Path, view: Any, x: Tensor, y: Tensor, *, indices: Tensor, **_: Any) -> Tensor:  # noqa: ARG001
    import torch

    given, rows = _read(path, path.stat().st_mtime_ns)
    missing = [i for i in indices.tolist() if i not in rows]
    if missing:
        raise ValueError(f"{path} has no image {missing[0]} of the data set")
    return torch.from_numpy(given.x[[rows[i] for i in indices.tolist()]]).to(x.device)


UNCHANGED = "its images are the clean ones"  # a note on given images
