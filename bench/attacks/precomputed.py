"""Precomputed adversarial images as an attack, "given:path", which reads them from the file."""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench.attacks.base import Attack, AttackRequest, keyword_form
from bench.attacks.budgets import check_params
from bench.spec.cell import PRECOMPUTED
from bench.store.parts import sha256
from defenses.utils.errors import UserError
from defenses.utils.introspection import Parameters

if TYPE_CHECKING:
    from torch import Tensor

    from bench.attacks.precomputed_files import PrecomputedImages

UNCHANGED = "its images are the clean ones"  # a note on precomputed images


def names() -> list[str]:
    """Return []: files are named by their path."""
    return []


def find(local: str, params: dict[str, object]) -> Attack:
    """Return the attack of a file, which needs an array `index` (see `precomputed_files.read_precomputed`).

    Args:
        local: path of the file.
        params: `minimisation = true` declares that images may lie outside the ball; those do not count.

    Raises:
        UserError: there is no such file, or a parameter is unknown.
    """
    name, path = f"{PRECOMPUTED}{local}", Path(local).expanduser()
    check_params(name, params, parameters(local).names)
    if not path.is_file():
        raise UserError(f"{name}: there is no file {path}")
    stat = path.stat()
    return Attack(
        name=name,
        run=keyword_form(partial(_run, path)),
        minimisation=params.get("minimisation", False) is True,
        version=f"sha256 {_sha(path, stat.st_mtime_ns, stat.st_size)[:32]}",
    )


def parameters(_: str) -> Parameters:
    """Return the parameters of a file of images; see `bench.attacks.registry.attack_parameters`."""
    return Parameters(("minimisation",), defaults={"minimisation": False})


@lru_cache(maxsize=64)
def _sha(path: Path, _time: int, _size: int) -> str:
    return sha256(path)


@lru_cache(maxsize=2)
def _read(path: Path, _time: int) -> tuple[PrecomputedImages, dict[int, int]]:
    """Return the images of a file, and the row of each index."""
    from bench.attacks.precomputed_files import read_precomputed

    attacks = read_precomputed(path)
    if len(attacks) > 1:
        raise ValueError(f"{path} holds the images of {len(attacks)} attacks; an attack is one")
    if attacks[0].index is None:
        raise ValueError(f"{path} has no array index, which says which images of the data set they are")
    return attacks[0], {int(i): row for row, i in enumerate(attacks[0].index)}


def _run(path: Path, _view: object, request: AttackRequest) -> Tensor:
    import torch

    assert request.indices is not None
    images, rows = _read(path, path.stat().st_mtime_ns)
    indices = request.indices.tolist()
    missing = [i for i in indices if i not in rows]
    if missing:
        raise ValueError(f"{path} has no image {missing[0]} of the data set")
    return torch.from_numpy(images.x[[rows[i] for i in indices]]).to(request.x.device)
