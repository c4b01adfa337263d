"""Pairs of defenses on the same images: differences, and the images on which they differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

from bench.analysis.pairs import numbers_of
from bench.analysis.sides import Side

ALL = 60  # rows up to which every pair is compared; beyond that neighbours in rank alone


@dataclass(frozen=True)
class Pair:
    """Two defenses on the same images.

    Args:
        a: label of the one that stands higher on the board.
        b: label of the other.
        difference: mean accuracy of a less that of b under their worst cases.
        low: lower end of its 95% interval.
        high: upper end.
        only_a: number of images that a alone decides right; NaN for several trainings, as the next two.
        only_b: number of images that b alone decides right.
        p_value: of McNemar's exact test.
        images: number of images; 0 for a pair that does not compare.
        status: "ok", or why the pair does not compare.
        of_a: dataset indices of the images that a alone decides right.
        of_b: of those that b alone decides right.
    """

    a: str
    b: str
    difference: float
    low: float
    high: float
    only_a: float
    only_b: float
    p_value: float
    images: int
    status: str
    of_a: tuple[int, ...]
    of_b: tuple[int, ...]


def pairs_of(labels: Sequence[str], sides: Mapping[str, Side]) -> Iterator[Pair]:
    """Yield the pairs of a board; of more than `ALL` defenses those that follow each other.

    Args:
        labels: of the rows, best first.
        sides: worst cases by label; rows without one have no pairs.
    """
    known = [label for label in labels if label in sides]
    for a, b in combinations(known, 2) if len(known) <= ALL else pairwise(known):
        difference, low, high, only_a, only_b, p, n, status = numbers_of(sides[a], sides[b])
        of_a, of_b = _images(sides[a], sides[b], status)
        yield Pair(a, b, difference, low, high, only_a, only_b, p, n, status, of_a, of_b)


def _images(a: Side, b: Side, status: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the images that each side alone decides right."""
    if status != "ok" or a.decisions is None or b.decisions is None:
        return (), ()
    only_a, only_b = (np.asarray(a.index)[rows] for rows in (a.decisions & ~b.decisions, b.decisions & ~a.decisions))
    return tuple(only_a.tolist()), tuple(only_b.tolist())
