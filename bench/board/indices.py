"""Resolve index lists: all images, the first N, a random or stratified sample, a published subset, or a file."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

from bench.board import subsets
from defenses.utils.errors import UserError, unknown

FORMS = ("all", "first-N", "random-N-seedS", "stratified-N-seedS", "<file>.txt", "<file>.json", "<file>.npy")

_FIRST = re.compile(r"first-(\d+)")
_SAMPLE = re.compile(r"(random|stratified)-(\d+)-seed(\d+)")


@dataclass(frozen=True)
class IndexList:
    """An ordered list of images of a split.

    Args:
        name: name as "first-1000"; of a file, its name without the suffix.
        hash: 16 hex digits that depend only on the positions and their order.
        positions: positions in the split, all different.
    """

    name: str
    hash: str
    positions: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.positions)


def resolve(
    spec: str,
    size: int,
    *,
    dataset: str = "this data set",
    split: str = "test",
    labels: Callable[[], Sequence[int]] | None = None,
) -> IndexList:
    """Return the index list of a name.

    Args:
        spec: "all"; "first-N"; "random-N-seedS" (N images, ordered by the sha256 of seed and position, so independent
            of versions); "stratified-N-seedS" (N images in rounds of one image of each class that has any left, ordered
            likewise within a round); the name of a published subset (`bench.board.subsets`); or a file with one
            position a line (.txt, # starts a comment), a list (.json) or an array of whole numbers (.npy). A longer
            random or stratified list starts with the shorter one.
        size: number of images of the split.
        dataset: name of the data set, for published subsets.
        split: split of the data set.
        labels: returns the labels of the split, in its order; called only for stratified samples.

    Raises:
        UserError: unknown name, unreadable file, a position twice or outside the split, more images than there are.
    """
    first, sample = _FIRST.fullmatch(spec), _SAMPLE.fullmatch(spec)
    name = spec
    if spec == "all":
        at = list(range(size))
    elif first:
        at = list(range(_count(spec, int(first[1]), size)))
    elif sample:
        count, seed = _count(spec, int(sample[2]), size), int(sample[3])
        name = f"{sample[1]}-{count}-seed{seed}"
        order = _shuffled(size, "random", seed) if sample[1] == "random" else _stratified(spec, size, seed, labels)
        at = order[:count]
    elif spec in subsets.names():
        at = subsets.positions(spec, dataset, split)
    else:
        name, at = Path(spec).stem, _from_file(Path(spec).expanduser())
    _check(spec, at, size)
    return IndexList(name, hashlib.sha256(",".join(map(str, at)).encode()).hexdigest()[:16], tuple(at))


def meaning(spec: str) -> str:
    """Return what the name of an index list of any data set stands for; "" for published subsets and files."""
    if spec == "all":
        return "all images of a split, in its order"
    if first := _FIRST.fullmatch(spec):
        return f"the first {first[1]} images of a split, in its order"
    if not (sample := _SAMPLE.fullmatch(spec)):
        return ""
    rounds = ", in rounds of one image of each class" if sample[1] == "stratified" else ""
    return f"{sample[2]} images of a split, ordered by a hash of the seed {sample[3]} and the position{rounds}"


def first_images(n_examples: int | None) -> str:
    """Return the name of the list of the first images, "all" for None.

    Args:
        n_examples: number of images, at least 1; None: all.

    Raises:
        UserError: not a whole number, or less than 1.
    """
    if n_examples is None:
        return "all"
    if isinstance(n_examples, bool) or not isinstance(n_examples, Integral) or n_examples < 1:
        if isinstance(n_examples, tuple | list):
            raise UserError("n_examples is a pair or list; give data by name: dataset=(x, y)")
        raise UserError(f"n_examples is {n_examples!r}; it must be a whole number, at least 1, or None for all images")
    return f"first-{n_examples}"


def _shuffled(size: int, kind: str, seed: int) -> list[int]:
    return sorted(range(size), key=lambda i: hashlib.sha256(f"purebench {kind} {seed} {i}".encode()).digest())


def _stratified(spec: str, size: int, seed: int, labels: Callable[[], Sequence[int]] | None) -> list[int]:
    """Return all positions, in rounds of one image of each class; within a round in shuffled order."""
    if labels is None:
        raise UserError(f'index list "{spec}" needs the labels, which are not at hand; name another list')
    classes, counts, order = labels(), Counter[int](), list[tuple[int, int, int]]()
    for rank, i in enumerate(_shuffled(size, "stratified", seed)):
        counts[classes[i]] += 1
        order.append((counts[classes[i]], rank, i))
    return [i for _, _, i in sorted(order)]


def _count(spec: str, count: int, size: int) -> int:
    if count > size:
        raise UserError(f'index list "{spec}" wants {count} images; the split has {size}')
    return count


def _check(spec: str, at: list[int], size: int) -> None:
    if not at:
        raise UserError(f'index list "{spec}" is empty; name at least one image')
    negative = next((i for i in at if i < 0), None)
    if negative is not None:
        raise UserError(f'index list "{spec}" has position {negative}; positions count from 0, none is negative')
    outside = next((i for i in at if i >= size), None)
    if outside is not None:
        raise UserError(f'index list "{spec}" has position {outside}; the split has positions 0 to {size - 1}')
    if len(set(at)) < len(at):
        twice = next(i for i, n in Counter(at).items() if n > 1)
        raise UserError(f'index list "{spec}" has position {twice} more than once; remove the repetition')


def _from_file(path: Path) -> list[int]:
    if path.suffix not in (".txt", ".json", ".npy"):
        raise unknown("index list", str(path), (*FORMS, *subsets.names()))
    try:
        if not path.stat().st_size:
            raise UserError(f"index list {path} is empty; name at least one image")
        values = _read(path)
    except FileNotFoundError:
        raise UserError(f"index list {path} is missing; give the path of a .txt, .json or .npy file") from None
    except (OSError, ValueError, EOFError):
        raise UserError(
            f"index list {path} cannot be read; write one whole number per line, a list, or a 1-d array"
        ) from None
    if not isinstance(values, list) or any(type(i) is not int for i in values):
        raise UserError(f"index list {path} has something that is no whole number; write positions only")
    return values


def _read(path: Path) -> object:
    if path.suffix == ".npy":
        import numpy as np

        return np.load(path, allow_pickle=False).tolist()
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return json.loads(text)
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return [int(line) for line in lines if line]
