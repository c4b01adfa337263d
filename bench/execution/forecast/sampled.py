"""What an attack takes that asks the defense itself, as `bench:adaptive`: it is run on a few images of the block.

Such an attack lets images go as soon as they are decided, so what it takes depends on how soon the defense gives way,
which no stand-in shows. The mean of a few images is no bound: the block may hold harder ones.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from bench.attacks.registry import Unsupported
from bench.evaluation.meter import Meter
from bench.execution.forecast.counting_model import Enough
from bench.execution.records import Block
from bench.execution.run_cell import attacked
from bench.spec.cell import Cell
from bench.spec.threat import target_labels
from defenses.core.defense import Defense
from defenses.utils.errors import UserError

_FIRST = 8  # a first image is timed again, without what is made but once, where it took a smaller share of the time


def sampled(cell: Cell, defense: Defense, block: Block, classes: int, deadline: float) -> tuple[float, float, bool]:
    """Run an attack on 1, 2, 4, ... other images of its block, as long as there is time.

    The seconds of a block are a line in its evaluations, which starts at what calls take whatever their size.

    Args:
        cell: whose attack, with its own settings and seed.
        defense: what it attacks.
        block: its images.
        classes: K.
        deadline: when it has to end, by `time.perf_counter`.

    Returns:
        (seconds and evaluations of the whole block; False: there was no time for one image, and they are what it had
        taken by then, for each image).

    Raises:
        Unsupported: the attack cannot run, or it failed.
    """
    order = torch.randperm(len(block.x), generator=torch.Generator().manual_seed(cell.seed))
    measured: list[tuple[float, float]] = []
    done, size = 0, 1
    while done < len(order):
        if measured and time.perf_counter() + 2 * measured[-1][0] > deadline:
            break
        at = order[done : done + size]
        part = _part(block, at)
        seconds, evaluations, complete = _run(cell, defense, part, classes, deadline)
        if not complete:
            if not measured:
                return seconds * len(order), evaluations * len(order), False
            break
        if not measured and _FIRST * seconds < deadline - time.perf_counter():
            seconds = _run(cell, defense, part, classes, deadline)[0]
        measured.append((seconds, evaluations))
        done, size = done + len(at), 2 * size
    total = sum(e for _, e in measured) * len(order) / done
    return _seconds(measured, total), total, True


def _seconds(measured: list[tuple[float, float]], evaluations: float) -> float:
    """Of so many evaluations at once."""
    seconds, cost = measured[-1]
    each = seconds / max(cost, 1.0)
    if len(measured) > 1 and cost > (before := measured[-2])[1]:
        each = min(each, max(0.0, (seconds - before[0]) / (cost - before[1])))
    return seconds + (evaluations - cost) * each


def _part(block: Block, at: Tensor) -> Block:
    return Block(block.x[at], block.y[at], block.indices[at], tuple(block.shas[i] for i in at.tolist()))


def _run(cell: Cell, defense: Defense, part: Block, classes: int, deadline: float) -> tuple[float, float, bool]:
    """(seconds, evaluations, whether the attack came to its end before the deadline)."""

    def watch(*_: Any) -> None:
        if time.perf_counter() > deadline:
            raise Enough

    target = target_labels(cell.threat, part.y, part.indices, classes, cell.seed)
    networks = defense.cost_modules()
    meter, hooks = Meter(networks), [m.register_forward_pre_hook(watch) for m in networks]
    begin, complete = time.perf_counter(), True
    try:
        attacked(cell, defense, part, target, classes)
    except Enough:
        complete = False
    except (Unsupported, UserError):
        raise
    except Exception as error:
        raise Unsupported(f"the attack failed: {type(error).__name__}") from error
    finally:
        meter.detach()
        for hook in hooks:
            hook.remove()
    return time.perf_counter() - begin, float(meter.evaluations), complete
