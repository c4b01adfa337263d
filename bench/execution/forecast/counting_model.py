"""Count the calls that an attack makes of a view, on a cheap linear model in its place."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.attacks.registry import find_attack
from bench.execution.records import Block
from bench.spec.cell import Cell
from bench.spec.threat import target_labels
from defenses.utils.parameters import decode


class NeedsDefense(Exception):
    """The attack needs the defense of a view, so its calls cannot be counted on a `CountingModel`."""


class DeadlinePassed(BaseException):
    """The time for a row is over; a BaseException, as attack libraries catch exceptions."""


@dataclass(frozen=True)
class RateLine:
    """The seconds of a call: `start + rows * slope`."""

    start: float
    slope: float

    def __call__(self, rows: int) -> float:
        """Return the seconds of a call with `rows` rows."""
        return self.start + rows * self.slope


@dataclass(frozen=True)
class Rates:
    """The costs of calls of a view.

    Args:
        forward: seconds of a forward call.
        backward: seconds of a backward call.
        per_row: evaluations of one row forward, and backward.
        answers: predicted class of each clean image, int64 [B].
        broken: images that a few gradient steps broke, bool [B].
    """

    forward: RateLine
    backward: RateLine
    per_row: tuple[float, float]
    answers: Tensor
    broken: Tensor


class CountingModel(nn.Module):
    """A linear model in place of a view, which counts its calls.

    It gives up an image of `rates.broken` at a distance of a quarter of eps, and no other image.

    Args:
        cell: the cell.
        rates: costs and predictions of the view.
        block: images of the cell.
        classes: K.
        deadline: time at which calls raise `DeadlinePassed`, by `time.perf_counter`.
    """

    def __init__(self, cell: Cell, rates: Rates, block: Block, classes: int, deadline: float):
        super().__init__()
        self.stochastic, self.deadline = cell.defense.stochastic, deadline
        self.counts: Counter[tuple[int, bool]] = Counter()
        self.seconds, self.queries = 0.0, 0
        self.norm = {"L2": 2.0, "L1": 1.0}.get(cell.threat.norm, float("inf"))
        self.reach = float(cell.threat.eps) / 4
        device = rates.answers.device
        self.originals = block.x.to(device).flatten(1)
        y = block.y.to(device)
        self.near = nn.functional.one_hot(rates.answers, classes).float()
        beyond = torch.where(rates.broken, (y + 1) % classes, rates.answers)
        self.beyond = nn.functional.one_hot(beyond, classes).float()
        # The linear part gives gradients, and stays too small to change a class.
        size = self.originals.shape[1]
        weight = torch.randn(size, classes, generator=torch.Generator().manual_seed(0))
        self.weight = nn.Parameter((0.01 / size**0.5 * weight).to(device), requires_grad=False)
        self.train(False)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, K]."""
        begin = time.perf_counter()
        if begin > self.deadline:
            raise DeadlinePassed
        self.counts[len(x), False] += 1
        self.queries += len(x)
        flat = x.flatten(1)
        with torch.no_grad():
            distance, nearest = torch.cdist(flat, self.originals, p=self.norm).min(1)
            classes = torch.where(distance[:, None] > self.reach, self.beyond[nearest], self.near[nearest])
        logits = flat @ self.weight + classes
        if logits.requires_grad:
            rows = len(x)
            logits.register_hook(lambda _: self._back(rows))
        self.seconds += time.perf_counter() - begin
        return logits

    def _back(self, rows: int) -> None:
        self.counts[rows, True] += 1

    def train(self, mode: bool = True) -> CountingModel:
        """Stay in evaluation mode."""
        return super().train(False)


def count(
    cell: Cell, rates: Rates, block: Block, classes: int, device: torch.device, deadline: float
) -> tuple[Mapping[tuple[int, bool], int], float, bool]:
    """Count the calls of an attack on a `CountingModel`.

    Args:
        cell: the cell of the attack.
        rates: costs and predictions of the view.
        block: images of the cell.
        classes: K.
        device: device of the defense.
        deadline: time of the end, by `time.perf_counter`.

    Returns:
        Calls by rows and direction (True: backward); seconds of the attack without its calls; True if it ended before
        the deadline.

    Raises:
        Unsupported: the library cannot run the attack.
        NeedsDefense: the attack needs the defense of the view.
    """
    params = decode(cell.attack.params)
    attack = find_attack(cell.attack.name, params)
    target = target_labels(cell.threat, block.y, block.indices, classes, cell.seed)
    model = CountingModel(cell, rates, block, classes, deadline)
    attack.load()
    begin, complete = time.perf_counter(), True
    try:
        attack.run(
            model,
            block.x.to(device, copy=True),
            block.y.to(device, copy=True),
            threat=cell.threat,
            target=None if target is None else target.to(device),
            seed=0,
            num_classes=classes,
            indices=block.indices,
            **params,
        )
    except DeadlinePassed:
        complete = False
    except AttributeError as error:  # as of bench:adaptive, which calls the defense of the view
        raise NeedsDefense from error
    attack_seconds = time.perf_counter() - begin - model.seconds
    return model.counts, attack_seconds, complete
