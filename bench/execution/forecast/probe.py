"""A short probe of what cells will take: calls of the attack are counted on a stand-in, and timed on the defense.

The stand-in is a linear model that gives up the images which a few gradient steps took from the defense, and no
others. An attack that leaves broken images alone asks it about as often as it would ask the defense. Images that only
the attack itself breaks make the forecast an upper estimate. An attack that asks the defense itself is run on a few
images: see `bench.execution.forecast.sampled`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from bench.attacks.registry import Unsupported
from bench.evaluation.devices import device_of
from bench.evaluation.meter import Meter
from bench.evaluation.verdict import verdict
from bench.evaluation.view import AttackView, attack_view
from bench.execution.cell_runner import CellRunner
from bench.execution.forecast.counting_model import NeedsDefense, RateLine, Rates, count
from bench.execution.forecast.estimates import SAMPLE, Forecast
from bench.execution.forecast.sampled import sampled
from bench.execution.records import Block
from bench.spec.cell import NULLS, Cell, VerdictSpec, row_of
from bench.spec.view import ViewSpec
from bench.stats.sequential import Sequential
from defenses.core.defense import Defense
from defenses.utils.errors import UserError
from defenses.utils.text import clean

_STEPS = 5  # of the attack that tells which images break soon
_SHARE = 0.3  # of the time for a row, at most this for its longest single measurement


def probe(
    workshop: CellRunner,
    rows: Mapping[str, Cell],
    *,
    budget: float = 60.0,
    report: Callable[[int, int, str], None] = lambda *_: None,
) -> dict[str, Forecast]:
    """Forecast rows from a short probe.

    Args:
        workshop: data and defenses.
        rows: a cell of each row, by row (see `bench.spec.cell.row_of`).
        budget: seconds in total, about; at least a few calls of each view are made.
        report: is told which row comes now: its number, how many there are, its name.

    Returns:
        By row; what cannot run is left out.
    """
    end, found = time.perf_counter() + budget, {}
    rates: dict[tuple[str, str, str], Rates] = {}
    verdicts: dict[tuple[str, VerdictSpec], tuple[float, float]] = {}
    left, again = list(rows.values()), set[str]()
    while left:
        cell = left.pop(0)
        row = row_of(cell)
        number = len(rows) - len({row_of(c) for c in left})
        report(number, len(rows), row)
        now = time.perf_counter()
        share = max(0.0, end - now) / (len(left) + 1)
        try:
            judged = cell.defense.label, cell.verdict  # one draw alone where the seed is known
            if judged not in verdicts:
                verdicts[judged] = _verdict(cell, workshop, share * _SHARE)
            forecast = _row(workshop, cell, rates, verdicts[judged], now + share, share)
        except (Unsupported, UserError):
            continue
        except Exception as error:  # a model or an attack fails: a run records it
            report(number, len(rows), f"{row} cannot be probed: {clean(str(error)) or type(error).__name__}")
            continue
        found[row] = forecast
        if forecast.source == "at least" and row not in again:
            again.add(row)
            left.append(cell)  # once more, with the time that others did not need
    return found


def _row(
    workshop: CellRunner,
    cell: Cell,
    known: dict[tuple[str, str, str], Rates],
    judging: tuple[float, float],
    deadline: float,
    share: float,
) -> Forecast:
    if cell.attack.name in NULLS:
        return Forecast(*judging, "probe")
    if cell.surrogate is not None:  # what is attacked is another defense
        cell = replace(cell, defense=cell.surrogate, view=ViewSpec(), surrogate=None)
    block, defense = workshop.block(cell), workshop.defense(cell)
    if cell.view.mode not in defense.gradients:
        raise Unsupported("no such gradient mode")
    name = (cell.defense.label, str(cell.view), str(cell.threat))
    if name not in known:
        known[name] = _rates(cell, defense, block, share * _SHARE)
    rates, classes = known[name], workshop.data().num_classes
    try:
        counts, own, complete = count(cell, rates, block, classes, device_of(defense), deadline)
    except NeedsDefense:
        attack, asked, complete = sampled(cell, defense, block, classes, deadline)
        return Forecast(attack + judging[0], asked + judging[1], SAMPLE if complete else "at least")
    seconds, evaluations = own + judging[0], judging[1]
    for (rows, backward), n in counts.items():
        line = rates.backward if backward else rates.forward
        seconds += n * line(rows)
        evaluations += n * rows * rates.per_row[backward]
    return Forecast(seconds, evaluations, "probe" if complete else "at least")


def _seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def _line(call: Callable[[int], object], rows: int, most: float) -> RateLine:
    """Time a call with few rows, and with all where one such call does not take longer than `most` seconds."""
    few = max(1, rows // 8)
    call(few)  # the first is slow
    small = min(_seconds(lambda: call(few)) for _ in range(2))
    if few == rows or small * rows / few > most:
        return RateLine(0.0, small / few)
    call(rows)
    large = min(_seconds(lambda: call(rows)) for _ in range(3))
    slope = max(0.0, (large - small) / (rows - few))
    return RateLine(max(0.0, large - slope * rows), slope)


def _rates(cell: Cell, defense: Defense, block: Block, most: float) -> Rates:
    device = device_of(defense)
    x, y = block.x.to(device), block.y.to(device)
    with attack_view(defense, cell.view, seed=0) as (view, meter):

        def ask(rows: int) -> None:
            with torch.no_grad():
                view(x[:rows])

        forward = _line(ask, len(x), most)
        before = meter.evaluations
        ask(1)
        per_row = meter.evaluations - before
        answers = _answers(view, x, forward, most)
        both = _line(lambda rows: _gradient(view, x[:rows], y[:rows]), len(x), most)
        before = meter.evaluations
        _gradient(view, x[:1], y[:1])
        back = meter.evaluations - before - per_row
        backward = RateLine(max(0.0, both.start - forward.start), max(0.0, both.slope - forward.slope))
        broken = answers != y
        if both(len(x)) <= most:
            broken |= _broken(view, x, y, cell)
    return Rates(forward, backward, (per_row, max(0.0, back)), answers, broken)


def _answers(view: AttackView, x: Tensor, forward: RateLine, most: float) -> Tensor:
    size = len(x) if forward(len(x)) <= most else max(1, len(x) // 8)
    with torch.no_grad():
        said: Tensor = view(x[:size]).argmax(1)
    return said.repeat(len(x) // size + 1)[: len(x)]


def _gradient(view: AttackView, x: Tensor, y: Tensor) -> Tensor:
    at = x.clone().requires_grad_()
    loss = nn.functional.cross_entropy(view(at), y, reduction="sum")
    gradient: Tensor = torch.autograd.grad(loss, at)[0]
    return gradient


def _broken(view: AttackView, x: Tensor, y: Tensor, cell: Cell) -> Tensor:
    """Bool [B]: wrong after a few steps of Frank and Wolfe's method, which needs no projection on the ball."""
    eps, delta = float(cell.threat.eps), torch.zeros_like(x)
    broken = torch.zeros_like(y, dtype=torch.bool)
    for k in range(_STEPS):
        g = _gradient(view, (x + delta).clamp(0, 1), y)
        if cell.threat.norm == "Linf":
            step = g.sign()
        elif cell.threat.norm == "L2":
            step = g / g.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
        else:
            return broken
        delta = delta + 2 / (k + 2) * (eps * step - delta)
        with torch.no_grad():
            broken |= view((x + delta).clamp(0, 1)).argmax(1) != y
    return broken


def _verdict(cell: Cell, workshop: CellRunner, most: float) -> tuple[float, float]:
    """(seconds, evaluations) of a verdict, from as many draws as there is time for."""
    spec, defense, block = cell.verdict, workshop.defense(cell), workshop.block(cell)
    x, wanted = block.x.to(device_of(defense)), spec.draws + spec.selection
    if spec.sequential is not None:  # as if accuracies were spread evenly
        wanted = spec.selection + max(spec.draws, round(Sequential(*spec.sequential).mean_draws))
    meter = Meter(defense.cost_modules())

    def judge(draws: int) -> float:
        given: dict[str, Any] = {"seed": 0, "batch": spec.batch, "known": cell.view.known}
        return _seconds(lambda: verdict(defense, x, block.indices, draws=draws, selection=0, **given))

    try:
        judge(1)
        meter.forwards = meter.backwards = 0
        one = judge(1)
        each = meter.evaluations
        draws = max(1, min(wanted, int(most / one)))
        seconds = judge(draws) if draws > 1 else one
    finally:
        meter.detach()
    return seconds * wanted / draws, float(each * wanted)
