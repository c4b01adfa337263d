"""The training loop of all methods: progress, checkpoints, exact resumption, the best weights."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from defenses.training.divergence import Diverged, check_gradient, check_weights
from defenses.training.objective import Objective
from defenses.training.phases import Phase, PhasedOptimizer, optimizer_of
from defenses.training.streams import Order, seeded_step
from defenses.utils.errors import UserError
from defenses.utils.plugins import line_of

_DIVERGED = 1e9  # times the first loss; no training recovers


@dataclass(frozen=True)
class Plan:
    """Length, optimizers and intervals of a training.

    Args:
        batch: images a step.
        phases: optimizers, in order; training ends with the last.
        validate_every: steps between validations.
        checkpoint_every: steps between checkpoints.
        seed: seed of the data order.
        fingerprint: of the recipe; checkpoints of others are refused.
    """

    batch: int
    phases: tuple[Phase, ...]
    validate_every: int
    checkpoint_every: int
    seed: int
    fingerprint: str

    @property
    def steps(self) -> int:
        """Return the number of steps."""
        return self.phases[-1].until


@dataclass
class _Run:
    """State of a training."""

    step: int = 0
    best: float = -math.inf
    best_step: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    cpu_seconds: float = 0.0
    saved: int | None = None  # step of the last checkpoint
    most: float = math.inf  # largest loss that has not diverged


@dataclass(frozen=True)
class Result:
    """Outcome of a training.

    Args:
        weights: to ship, a state dict.
        step: of these weights.
        history: the metrics of every validation.
        cpu_seconds: of all processes that trained; of killed ones up to the checkpoint that the next resumed.
    """

    weights: dict[str, Tensor]
    step: int
    history: list[dict[str, float]]
    cpu_seconds: float


def _save(path: Path, plan: Plan, run: _Run, objective: Objective, schedule: PhasedOptimizer) -> None:
    check_weights(objective)
    run.saved = run.step
    content = {
        "fingerprint": plan.fingerprint,
        "run": vars(run),
        "network": objective.network.state_dict(),
        "objective": objective.state(),
        "optimizer": schedule.optimizer.state_dict(),
        "optimizer_kind": schedule.kind,
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


def _resume(path: Path, plan: Plan, objective: Objective, schedule: PhasedOptimizer) -> _Run:
    try:
        content: dict[str, Any] = torch.load(path, map_location=objective.device, weights_only=True)
    except Exception as error:  # damaged files raise many types of errors
        raise UserError(f"checkpoint {path} cannot be read ({type(error).__name__}); delete it to start anew") from None
    if not isinstance(content, dict) or content.get("fingerprint") != plan.fingerprint:
        raise UserError(
            f"checkpoint {path} belongs to another recipe or seed; train under another name or into another folder, "
            "or delete it to start anew"
        )
    try:
        run = _Run(**content["run"])
        objective.network.load_state_dict(content["network"])
        objective.restore(content["objective"])
        if content["optimizer_kind"] != schedule.kind:
            phase = next(p for p in plan.phases if p.optimizer == content["optimizer_kind"])
            schedule.optimizer, schedule.kind = optimizer_of(objective, phase), phase.optimizer
        schedule.optimizer.load_state_dict(content["optimizer"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, StopIteration) as error:
        raise UserError(f"checkpoint {path} is not whole ({line_of(error)}); delete it to start anew") from None
    return run


@contextlib.contextmanager
def _interrupt_after_step() -> Iterator[Callable[[], bool]]:
    """Delay Ctrl-C to the end of the step, so that no checkpoint holds half of one."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted.is_set
        return
    before = signal.signal(signal.SIGINT, lambda *_: interrupted.set())
    try:
        yield interrupted.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def _validate(run: _Run, objective: Objective) -> None:
    check_weights(objective)
    objective.network.eval()
    metrics = objective.validate()
    objective.network.train()
    run.history.append({"step": float(run.step), **metrics, **objective.monitor()})
    score = metrics[objective.select] if objective.select else float(run.step)
    # Of equals, the later has trained longer.
    if score >= run.best:
        run.best, run.best_step = score, run.step
        run.weights = {n: v.detach().clone() for n, v in objective.shipped().items()}


def training_step(objective: Objective, schedule: PhasedOptimizer, order: Order, step: int, dropout: bool) -> float:
    """Make a step, and return the loss before it.

    Raises:
        Diverged: loss or gradient is not finite; the weights are unchanged.
    """
    optimizer = schedule.at(step)
    index = order(step // objective.replays).to(objective.device)
    with seeded_step(order.seed, step, objective.device) if dropout else contextlib.nullcontext():
        loss = objective.loss(index, step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
    value = float(loss.detach())
    if not math.isfinite(value):
        raise Diverged(f"loss {value:.3g}")
    check_gradient(objective)
    objective.before(step)
    optimizer.step()
    objective.after(step)
    return value


def _has_dropout(module: nn.Module) -> bool:
    """Return True if a layer draws from the global generator; timm and RobustBench have layers of their own."""
    rates = (getattr(module, name, 0.0) for name in ("p", "drop_prob", "drop_rate", "droprate"))
    return any(isinstance(rate, float) and rate > 0 for rate in rates)


@contextlib.contextmanager
def _explain_divergence(run: _Run, checkpoint: Path, schedule: PhasedOptimizer) -> Iterator[None]:
    """Turn a divergence into a message with the last checkpoint and the remedy."""
    try:
        yield
    except Diverged as error:
        i = schedule.phase_at(run.step)
        text = f"training diverged at step {run.step} ({error})"
        lower = f"train anew with a lower learning rate, as phases.{i}.lr={schedule.phases[i].lr / 10:g}"
        if run.saved is None:
            raise UserError(f"{text}; no checkpoint was written; {lower}") from None
        where = f"last good checkpoint: {checkpoint} (step {run.saved}), kept, of this recipe only"
        raise UserError(f"{text}; {where}; {lower}, under another name or into another folder") from None


def fit(objective: Objective, plan: Plan, checkpoint: Path, *, progress: bool = True) -> Result:
    """Train; if the checkpoint exists, go on from it exactly as if there had been no interruption.

    A checkpoint is written after every validation and every `plan.checkpoint_every` steps.

    Args:
        objective: the method with its network and data.
        plan: length, optimizers and intervals.
        checkpoint: its file.
        progress: show a progress bar.

    Returns:
        The best weights by `objective.select`, or the last.

    Raises:
        UserError: loss, gradient or weights are no longer finite, the loss is 1e9 times the first, or the checkpoint
            cannot be used.
        KeyboardInterrupt: on Ctrl-C, after a checkpoint was written.
    """
    network = objective.network.train()
    dropout = any(_has_dropout(m) for m in network.modules())
    schedule, order = PhasedOptimizer(objective, plan.phases), Order(len(objective.data.x), plan.batch, plan.seed)
    run = _resume(checkpoint, plan, objective, schedule) if checkpoint.exists() else _Run()
    begun = time.process_time() - run.cpu_seconds
    bar = tqdm(total=plan.steps, initial=run.step, unit="step", disable=not progress, mininterval=1.0)
    with bar, _interrupt_after_step() as interrupted, _explain_divergence(run, checkpoint, schedule):
        while run.step < plan.steps:
            loss = training_step(objective, schedule, order, run.step, dropout)
            if run.step == 0:
                run.most = _DIVERGED * max(1.0, abs(loss))
            if loss > run.most:
                raise Diverged(f"loss {loss:.3g}")
            run.step += 1
            bar.update()
            if run.step % 20 == 0:
                bar.set_postfix(loss=f"{loss:.4g}", **{n: f"{v:.3g}" for n, v in objective.monitor().items()})
            validated = run.step % plan.validate_every == 0 or run.step == plan.steps
            if validated:
                _validate(run, objective)
            run.cpu_seconds = time.process_time() - begun
            stops = interrupted()
            if validated or run.step % plan.checkpoint_every == 0 or stops:
                _save(checkpoint, plan, run, objective, schedule)
            if stops:
                raise KeyboardInterrupt
    return Result(run.weights, run.best_step, run.history, run.cpu_seconds)
