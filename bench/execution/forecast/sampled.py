"""Measure the cost of an attack that needs the defense, as `bench:adaptive`, on a few images of a block.

Such an attack stops at images that are decided, so its cost depends on how quickly it succeeds on the defense. The mean
of a few images is no bound: the block may hold harder ones.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from bench.attacks.registry import Unsupported
from bench.evaluation.meter import Meter
from bench.execution.attack_and_judge import attacked
from bench.execution.forecast.counting_model import DeadlinePassed
from bench.execution.records import Block
from bench.spec.cell import Cell
from bench.spec.threat import target_labels
from defenses.core.defense import Defense
from defenses.utils.errors import UserError

_FIRST = 8  # the first image is timed again, without initialisation, where so many such runs fit the time left


def sampled(cell: Cell, defense: Defense, block: Block, classes: int, deadline: float) -> tuple[float, float, bool]:
    """Run an attack on 1, 2, 4, ... images of its block, each image once, as long as there is time.

    The seconds of the block are extrapolated by a line in the evaluations.

    Args:
        cell: the cell of the attack.
        defense: the defense that it attacks.
        block: images of the cell.
        classes: K.
        deadline: time of the end, by `time.perf_counter`.

    Returns:
        Seconds and evaluations of the whole block; False where there was no time for one image, whose cost until the
        deadline then stands for each image.

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
    """Return the seconds of a call with so many evaluations, from (seconds, evaluations) of the measured ones."""
    seconds, cost = measured[-1]
    each = seconds / max(cost, 1.0)
    if len(measured) > 1 and cost > (before := measured[-2])[1]:
        each = min(each, max(0.0, (seconds - before[0]) / (cost - before[1])))
    return seconds + (evaluations - cost) * each


def _part(block: Block, at: Tensor) -> Block:
    return Block(block.x[at], block.y[at], block.indices[at], tuple(block.shas[i] for i in at.tolist()))


def _run(cell: Cell, defense: Defense, part: Block, classes: int, deadline: float) -> tuple[float, float, bool]:
    """Run an attack; return its seconds and evaluations, and True if it ended before the deadline."""

    def check_deadline(*_: object) -> None:
        if time.perf_counter() > deadline:
            raise DeadlinePassed

    target = target_labels(cell.threat, part.y, part.indices, classes, cell.seed)
    networks = defense.cost_modules()
    meter, hooks = Meter(networks), [m.register_forward_pre_hook(check_deadline) for m in networks]
    begin, complete = time.perf_counter(), True
    try:
        attacked(cell, defense, part, target, classes)
    except DeadlinePassed:
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
