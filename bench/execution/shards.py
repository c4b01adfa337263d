"""Divide the cells of a board among machines."""

from __future__ import annotations

from collections.abc import Iterable

from bench.execution.evaluations import evaluations
from bench.spec.cell import Cell
from bench.spec.shard import Shard

_SLACK = 1.02  # without it the last cells of most defenses, which fit nowhere else, are in shards of other defenses


def keys_of(shard: Shard, cells: Iterable[Cell]) -> set[str]:
    """Return the keys of the cells of a shard; every cell is in exactly one.

    The costliest cells are dealt out first: each to a shard that stays within little more than an equal share, rather
    to one that has its defense already, and else to the emptiest one. It depends on the cells alone, not on their order
    or the machine.

    Args:
        shard: which.
        cells: all cells of a board.
    """
    costs = sorted(((evaluations(cell), cell) for cell in cells), key=lambda pair: (-pair[0], pair[1].key))
    share = max([_SLACK * sum(cost for cost, _ in costs) / shard.of, *(cost for cost, _ in costs[:1])])
    loads, titles = [0] * shard.of, [set[str]() for _ in range(shard.of)]
    keys: set[str] = set()
    for cost, cell in costs:
        title = cell.defense.title
        fitting = [at for at, load in enumerate(loads) if load + cost <= share]
        if fitting:
            at = min(fitting, key=lambda at: (title not in titles[at], loads[at]))
        else:
            at = min(range(shard.of), key=loads.__getitem__)
        loads[at] += cost
        titles[at].add(title)
        if at + 1 == shard.number:
            keys.add(cell.key)
    return keys
