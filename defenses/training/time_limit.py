"""Length of a training under a time limit: as many steps as fit, with the schedule stretched over them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from defenses.training.loop import has_dropout, training_step
from defenses.training.objective import Objective
from defenses.training.phases import Phase, PhasedOptimizer
from defenses.training.plan import Plan
from defenses.training.streams import Order
from defenses.utils.errors import UserError

_USED = 0.9  # share of the limit that is planned for; the rest is for a machine that slows down
_TRIAL = 0.05  # share of the limit for measuring
_WARMUP = 3  # steps that are not timed


def plan_that_fits(make: Callable[[], Objective], plan: Plan, seconds: float) -> Plan:
    """Return a plan of as many steps as fit a time on this machine, at most its own.

    Phases and intervals between validations shrink alike, so that the learning rates go through the whole schedule.

    Args:
        make: returns a new objective, which is trained for some steps and thrown away.
        plan: the whole length.
        seconds: of the training; a tenth is kept in reserve.

    Raises:
        UserError: not even a step of each phase fits.
    """
    begun = time.perf_counter()
    step_seconds, validation_seconds = _measured(make(), plan, seconds * _TRIAL)
    validations = max(1, plan.steps // plan.validate_every)
    left = seconds * _USED - (time.perf_counter() - begun) - validations * validation_seconds
    steps = min(plan.steps, int(left / step_seconds))
    if steps < len(plan.phases):
        measured = (_WARMUP + 1) * step_seconds + validation_seconds
        needed = (measured + len(plan.phases) * step_seconds + validations * validation_seconds) / (_USED - _TRIAL)
        raise UserError(
            f"time_limit is {seconds:g} s, too short for a step of each phase with {validations} validations; "
            f"give at least {needed + 1:.0f} s, or validate less often (validate_every)"
        )
    every = max(1, round(plan.validate_every * steps / plan.steps))
    return replace(plan, phases=scaled_phases(plan.phases, steps), validate_every=every)


def _measured(objective: Objective, plan: Plan, seconds: float) -> tuple[float, float]:
    """Return the seconds of a step and of a validation."""
    schedule, order = PhasedOptimizer(objective, plan.phases), Order(len(objective.data.x), plan.batch, plan.seed)
    dropout = has_dropout(objective.network.train())
    for step in range(_WARMUP):
        training_step(objective, schedule, order, step, dropout)
    begun, steps = time.perf_counter(), 0
    while not steps or (time.perf_counter() - begun < seconds and steps < 100):
        training_step(objective, schedule, order, _WARMUP + steps, dropout)
        steps += 1
    step_seconds = (time.perf_counter() - begun) / steps
    objective.network.eval()
    begun = time.perf_counter()
    objective.validate()
    return step_seconds, time.perf_counter() - begun


def scaled_phases(phases: Sequence[Phase], steps: int) -> tuple[Phase, ...]:
    """Return phases that share `steps` as they share their own length, each of at least one step."""
    whole, result, end = phases[-1].until, [], 0
    for i, phase in enumerate(phases):
        end = min(max(end + 1, round(phase.until * steps / whole)), steps - (len(phases) - 1 - i))
        result.append(replace(phase, until=end))
    return tuple(result)
