"""Forecast cells from a short probe: count the attack's calls of a linear model, and time calls of the defense.

The linear model gives up the images that a few gradient steps break on the defense, and no others.
An attack that stops at broken images calls it about as often as the defense. Images that only the attack itself breaks
make the forecast an upper estimate. An attack that needs the defense is run on a few images: see
`bench.execution.forecast.sampled`.
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
from bench.spec.cell import Cell, VerdictSpec, row_of
from bench.stats.sequential import Sequential
from defenses.core.defense import Defense
from defenses.utils.errors import UserError
from defenses.utils.text import clean

_STEPS = 5  # of the attack that finds the images which break soon
_SHARE = 0.3  # of the time for a row: the limit of its longest single measurement


def probe(
    runner: CellRunner,
    rows: Mapping[str, Cell],
    *,
    budget: float = 60.0,
    report: Callable[[int, int, str], None] = lambda *_: None,
) -> dict[str, Forecast]:
    """Forecast rows from a short probe.

    Args:
        runner: loads data and defenses.
        rows: a cell of each row, by row (see `bench.spec.cell.row_of`).
        budget: approximate seconds in total; at least a few calls of each view are made.
        report: called before each row with its number, the number of rows, and its name.

    Returns:
        Forecasts by row; rows that cannot run are left out.
    """
    end, forecasts = time.perf_counter() + budget, dict[str, Forecast]()
    rates: dict[tuple[str, str, str], Rates] = {}
    verdicts: dict[tuple[str, VerdictSpec], tuple[float, float]] = {}
    left, repeated = list(rows.values()), set[str]()
    while left:
        cell = left.pop(0)
        row = row_of(cell)
        number = len(rows) - len({row_of(c) for c in left})
        report(number, len(rows), row)
        now = time.perf_counter()
        share = max(0.0, end - now) / (len(left) + 1)
        try:
            key = cell.defense.label, cell.verdict  # a cell whose seed is known has another verdict: one draw
            if key not in verdicts:
                verdicts[key] = _verdict(cell, runner, share * _SHARE)
            forecast = _row(runner, cell, rates, verdicts[key], now + share, share)
        except (Unsupported, UserError):
            continue
        except Exception as error:  # a model or an attack fails: a run records it
            report(number, len(rows), f"{row} cannot be probed: {clean(str(error)) or type(error).__name__}")
            continue
        forecasts[row] = forecast
        if forecast.source == "at least" and row not in repeated:
            repeated.add(row)
            left.append(cell)  # once more, with the time that other rows did not need
    return forecasts


def _row(
    runner: CellRunner,
    cell: Cell,
    rates_of_views: dict[tuple[str, str, str], Rates],
    verdict_cost: tuple[float, float],
    deadline: float,
    share: float,
) -> Forecast:
    if cell.attack.is_null:
        return Forecast(*verdict_cost, "probe")
    if cell.surrogate is not None:  # the surrogate is attacked
        cell = replace(cell, defense=cell.surrogate, view=cell.source_view, surrogate=None)
    block, defense = runner.block(cell), runner.defense(cell)
    if cell.view.mode not in defense.gradients:
        raise Unsupported("no such gradient mode")
    name = (cell.defense.label, str(cell.view), str(cell.threat))
    if name not in rates_of_views:
        rates_of_views[name] = _rates(cell, defense, block, share * _SHARE)
    rates, classes = rates_of_views[name], runner.data().num_classes
    try:
        counts, attack_seconds, complete = count(cell, rates, block, classes, device_of(defense), deadline)
    except NeedsDefense:
        attack_seconds, evaluations, complete = sampled(cell, defense, block, classes, deadline)
        source = SAMPLE if complete else "at least"
        return Forecast(attack_seconds + verdict_cost[0], evaluations + verdict_cost[1], source)
    seconds, evaluations = attack_seconds + verdict_cost[0], verdict_cost[1]
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
    """Time a call with few rows, and with all rows where such a call takes at most `most` seconds."""
    few = max(1, rows // 8)
    call(few)  # the first call is slow
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
    with attack_view(defense, cell.view, seed=0, compute=cell.compute) as (view, meter):

        def forward_call(rows: int) -> None:
            with torch.no_grad():
                view(x[:rows])

        forward = _line(forward_call, len(x), most)
        before = meter.evaluations
        forward_call(1)
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
    """Return the predictions of all images, int64 [B]; where that takes too long, those of a few repeated."""
    size = len(x) if forward(len(x)) <= most else max(1, len(x) // 8)
    with torch.no_grad():
        answers: Tensor = view(x[:size]).argmax(1)
    return answers.repeat(len(x) // size + 1)[: len(x)]


def _gradient(view: AttackView, x: Tensor, y: Tensor) -> Tensor:
    at = x.clone().requires_grad_()
    loss = nn.functional.cross_entropy(view(at), y, reduction="sum")
    gradient: Tensor = torch.autograd.grad(loss, at)[0]
    return gradient


def _broken(view: AttackView, x: Tensor, y: Tensor, cell: Cell) -> Tensor:
    """Return the images that are broken after a few steps of Frank and Wolfe's method (no projection), bool [B]."""
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


def _verdict(cell: Cell, runner: CellRunner, most: float) -> tuple[float, float]:
    """Return the (seconds, evaluations) of a verdict, from as many draws as there is time for."""
    spec, defense, block = cell.verdict, runner.defense(cell), runner.block(cell)
    x, total = block.x.to(device_of(defense)), spec.draws + spec.selection
    if spec.sequential is not None:  # expected for accuracies spread evenly
        total = spec.selection + max(spec.draws, round(Sequential(*spec.sequential).mean_draws))
    meter = Meter(defense.cost_modules())

    def measure(draws: int) -> float:
        options: dict[str, Any] = {"seed": 0, "batch": spec.batch, "known": cell.view.known}
        return _seconds(lambda: verdict(defense, x, block.indices, draws=draws, selection=0, **options))

    try:
        measure(1)
        meter.forwards = meter.backwards = 0
        single = measure(1)
        evaluations = meter.evaluations
        draws = max(1, min(total, int(most / single)))
        seconds = measure(draws) if draws > 1 else single
    finally:
        meter.detach()
    return seconds * total / draws, float(evaluations * total)
