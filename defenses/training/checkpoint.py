"""Checkpoints of a training: written whole, resumed exactly; damaged ones and those of other recipes are refused."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from defenses.training.divergence import check_weights
from defenses.training.objective import Objective
from defenses.training.phases import PhasedOptimizer, optimizer_of
from defenses.training.plan import Plan
from defenses.utils.errors import UserError
from defenses.utils.plugins import line_of


@dataclass
class RunState:
    """State of a training."""

    step: int = 0
    best: float = -math.inf
    best_step: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    cpu_seconds: float = 0.0
    seconds: float = 0.0
    saved: int | None = None  # step of the last checkpoint
    most: float = math.inf  # largest loss that has not diverged


def save_checkpoint(path: Path, plan: Plan, run: RunState, objective: Objective, schedule: PhasedOptimizer) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        UserError: it cannot be written.
        Diverged: a weight is not finite.
    """
    check_weights(objective)
    run.saved = run.step
    content = {
        "fingerprint": plan.fingerprint,
        "run": vars(run),
        "network": objective.network.state_dict(),
        "objective": objective.state(),
        "optimizer": schedule.optimizer.state_dict(),
        "optimizer_kind": schedule.kind,
        "until": [p.until for p in plan.phases],
        "validate_every": plan.validate_every,
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise UserError(f"cannot write checkpoint {path}: {error}") from None


def _load(path: Path, plan: Plan, device: torch.device) -> dict[str, Any]:
    try:
        content: dict[str, object] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # damaged files raise many types of errors
        raise UserError(f"checkpoint {path} cannot be read ({type(error).__name__}); delete it to start anew") from None
    if not isinstance(content, dict) or content.get("fingerprint") != plan.fingerprint:
        raise UserError(
            f"checkpoint {path} belongs to another recipe or seed; train under another name or into another folder, "
            "or delete it to start anew"
        )
    return content


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, StopIteration) as error:
        raise UserError(f"checkpoint {path} is not whole ({line_of(error)}); delete it to start anew") from None


def resumed_plan(path: Path, plan: Plan) -> Plan:
    """Return the plan with the length that a checkpoint's training has, which its time limit set.

    Raises:
        UserError: the checkpoint cannot be used.
    """
    content = _load(path, plan, torch.device("cpu"))
    with _whole(path):
        ends = zip(plan.phases, content["until"], strict=True)
        phases = tuple(replace(phase, until=int(until)) for phase, until in ends)
        return replace(plan, phases=phases, validate_every=int(content["validate_every"]))


def resume(path: Path, plan: Plan, objective: Objective, schedule: PhasedOptimizer) -> RunState:
    """Restore objective and optimizer from a checkpoint, and return the state of the training.

    Raises:
        UserError: the checkpoint cannot be used.
    """
    content = _load(path, plan, objective.device)
    with _whole(path):
        run = RunState(**content["run"])
        objective.network.load_state_dict(content["network"])
        objective.restore(content["objective"])
        if content["optimizer_kind"] != schedule.kind:
            phase = next(p for p in plan.phases if p.optimizer == content["optimizer_kind"])
            schedule.optimizer, schedule.kind = optimizer_of(objective, phase), phase.optimizer
        schedule.optimizer.load_state_dict(content["optimizer"])
    return run
