"""Say what a run will do, before it does it."""

from __future__ import annotations

from collections.abc import Sequence

from bench.execution.evaluations import evaluations
from bench.execution.forecast.estimates import makespan
from bench.execution.plan import RunPlan
from bench.spec.cell import Cell, row_of
from defenses.utils.text import counted, human_time


def intent(cells: Sequence[Cell], plan: RunPlan) -> str:
    """Return what a run will do, in one line; it is told before torch is imported, which takes seconds."""
    finished = len(cells) - len(plan.pending)
    blocks = {(c.data.start, c.data.stop) for c in cells}
    threats = {str(c.threat): None for c in cells}
    sizes = (
        counted(len({c.defense.title for c in cells}), "defense"),
        counted(len({c.attack.label for c in cells}), "attack"),
        counted(sum(stop - start for start, stop in blocks), "image"),
        *([counted(len(threats), "threat")] if len(threats) > 1 else []),
    )
    shard = "" if plan.options.shard is None else f"shard {plan.options.shard}: "
    forecast = f"; forecast {_forecast(plan)}" if plan.pending else ""
    count = f"{counted(len(cells), 'cell')}, {finished} finished"
    return f"{shard}{count}: {' x '.join(sizes)}{forecast}; results in {plan.folder}"


def _forecast(plan: RunPlan) -> str:
    """Return the time that a run will take, where earlier results or a probe tell it; else its evaluations.

    It is not known before a Ray cluster is connected how many workers that has.
    """
    rows = [row_of(cell) for cell in plan.pending]
    if plan.options.ray is None and all(row in plan.forecasts for row in rows):
        return human_time(makespan((plan.forecasts[row].seconds for row in rows), max(1, plan.options.workers)))
    count = sum(map(evaluations, plan.pending))
    digits = len(str(count)) - 2
    return f"{round(count, -digits):,} evaluations"  # two digits
