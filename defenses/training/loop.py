"""The training loop, one for all methods: progress, checkpoints, exact resumption, the best weights kept."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from defenses.errors import UserError, unknown
from defenses.training.objective import Objective
from defenses.training.schedules import learning_rates
from defenses.training.streams import Order, seeded_step


@dataclass(frozen=True)
class Phase:
    """A stretch of training with one optimizer and learning rate.

    Args:
        until: the step at which it ends.
        optimizer: "adam" or "sgd"; a phase with the optimizer of the one before keeps its moments.
        lr: learning rate at its start.
        lr_end: learning rate at its end, reached linearly; None is constant.
        momentum: of SGD.
        weight_decay: L2 penalty.
        schedule: "linear" (or constant, without lr_end), "cosine" or "cyclic", see `learning_rates`; for these two
            lr_end is 0 unless given. Rates that fall at certain steps are phases.
    """

    until: int
    optimizer: str
    lr: float
    lr_end: float | None = None
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: str = "linear"

    def described(self) -> dict[str, Any]:
        """What it is, for a recipe's fingerprint; a key that came later is left out where it has its default."""
        return {n: v for n, v in vars(self).items() if n != "schedule" or v != "linear"}


@dataclass(frozen=True)
class Plan:
    """How long, with what, and how often what is looked at.

    Args:
        batch: images a step.
        phases: optimizers, in order; the last one's end is the end.
        validate_every: steps between validations.
        checkpoint_every: steps between checkpoints.
        seed: seed of the data order.
        fingerprint: identity of the recipe; a checkpoint of another recipe is refused.
    """

    batch: int
    phases: tuple[Phase, ...]
    validate_every: int
    checkpoint_every: int
    seed: int
    fingerprint: str

    @property
    def steps(self) -> int:
        """Number of steps."""
        return self.phases[-1].until


@dataclass
class _Run:
    """Where a training stands."""

    step: int = 0
    best: float = -math.inf
    best_step: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Result:
    """What a training gives: the weights to ship (a state dict), their step, and the metrics of every validation."""

    weights: dict[str, Tensor]
    step: int
    history: list[dict[str, float]]


def _optimizer(objective: Objective, phase: Phase) -> torch.optim.Optimizer:
    parameters = objective.network.parameters()
    if phase.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=phase.lr, betas=objective.betas, weight_decay=phase.weight_decay)
    if phase.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=phase.lr, momentum=phase.momentum, weight_decay=phase.weight_decay)
    raise unknown("optimizer", phase.optimizer, ["adam", "sgd"])


class _Schedule:
    """The optimizer at any step."""

    def __init__(self, objective: Objective, phases: tuple[Phase, ...]):
        self.objective, self.phases = objective, phases
        self.optimizer = _optimizer(objective, phases[0])
        self.kind = phases[0].optimizer
        self._rates: dict[int, list[float]] = {}

    def at(self, step: int) -> torch.optim.Optimizer:
        i = next(i for i, p in enumerate(self.phases) if step < p.until)
        phase = self.phases[i]
        if phase.optimizer != self.kind:
            self.optimizer, self.kind = _optimizer(self.objective, phase), phase.optimizer
        lr = self._rate(i, step)
        for group in self.optimizer.param_groups:
            group.update(lr=lr, weight_decay=phase.weight_decay)
            if phase.optimizer == "sgd":
                group["momentum"] = phase.momentum
        return self.optimizer

    def _rate(self, i: int, step: int) -> float:
        phase, begin = self.phases[i], self.phases[i - 1].until if i else 0
        length = phase.until - begin
        if phase.schedule != "linear":
            if i not in self._rates:
                self._rates[i] = learning_rates(phase.schedule, phase.lr, phase.lr_end or 0.0, length)
            return self._rates[i][step - begin]
        return phase.lr if phase.lr_end is None else phase.lr + (phase.lr_end - phase.lr) * (step - begin) / length


def _save(path: Path, plan: Plan, run: _Run, objective: Objective, schedule: _Schedule) -> None:
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


def _resume(path: Path, plan: Plan, objective: Objective, schedule: _Schedule) -> _Run:
    try:
        content: dict[str, Any] = torch.load(path, map_location=objective.device, weights_only=True)
    except Exception as error:  # torch.load raises whatever the damaged part makes it raise
        raise UserError(f"checkpoint {path} cannot be read ({type(error).__name__}); delete it to start anew") from None
    if content["fingerprint"] != plan.fingerprint:
        raise UserError(f"checkpoint {path} belongs to another recipe or seed; delete it to start anew")
    run = _Run(**content["run"])
    objective.network.load_state_dict(content["network"])
    objective.restore(content["objective"])
    if content["optimizer_kind"] != schedule.kind:
        phase = next(p for p in plan.phases if p.optimizer == content["optimizer_kind"])
        schedule.optimizer, schedule.kind = _optimizer(objective, phase), phase.optimizer
    schedule.optimizer.load_state_dict(content["optimizer"])
    return run


@contextlib.contextmanager
def _interrupt_after_step() -> Iterator[Callable[[], bool]]:
    """Ctrl-C waits for the end of the step, so that a checkpoint never holds half of one."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = signal.signal(signal.SIGINT, lambda *_: asked.set())
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def _validate(run: _Run, objective: Objective) -> None:
    objective.network.eval()
    found = objective.validate()
    objective.network.train()
    run.history.append({"step": float(run.step), **found, **objective.monitor()})
    score = found[objective.select] if objective.select else float(run.step)
    # The later of two equals: it has trained longer.
    if score >= run.best:
        run.best, run.best_step = score, run.step
        run.weights = {n: v.detach().clone() for n, v in objective.shipped().items()}


def _step(objective: Objective, schedule: _Schedule, order: Order, step: int, dropout: bool) -> float:
    optimizer = schedule.at(step)
    index = order(step // objective.replays).to(objective.device)
    with seeded_step(order.seed, step, objective.device) if dropout else contextlib.nullcontext():
        loss = objective.loss(index, step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
    value = float(loss.detach())
    if math.isfinite(value):
        objective.before(step)
        optimizer.step()
        objective.after(step)
    return value


def _drops(module: nn.Module) -> bool:
    """Whether a layer draws from the global generator; those of timm and RobustBench are no torch.nn.Dropout."""
    rates = (getattr(module, name, 0.0) for name in ("p", "drop_prob", "drop_rate", "droprate"))
    return any(isinstance(rate, float) and rate > 0 for rate in rates)


def fit(objective: Objective, plan: Plan, checkpoint: Path, *, progress: bool = True) -> Result:
    """Train; if the checkpoint exists, go on from it, exactly as if there had been no interruption.

    Args:
        objective: what is trained.
        plan: how.
        checkpoint: the checkpoint's file.
        progress: show a progress bar.

    Raises:
        UserError: the loss is no longer finite, or the checkpoint cannot be used.
        KeyboardInterrupt: on Ctrl-C, after a checkpoint was written.
    """
    from tqdm import tqdm

    network = objective.network.train()
    dropout = any(_drops(m) for m in network.modules())
    schedule, order = _Schedule(objective, plan.phases), Order(len(objective.data.x), plan.batch, plan.seed)
    saved = checkpoint.exists()
    run = _resume(checkpoint, plan, objective, schedule) if saved else _Run()
    saved_at = run.step
    bar = tqdm(total=plan.steps, initial=run.step, unit="step", disable=not progress, mininterval=1.0)
    with bar, _interrupt_after_step() as interrupted:
        while run.step < plan.steps:
            loss = _step(objective, schedule, order, run.step, dropout)
            if not math.isfinite(loss):
                where = f"last good checkpoint: {checkpoint} (step {saved_at})" if saved else "no checkpoint yet"
                raise UserError(f"training diverged at step {run.step} (loss {loss}); {where}; lower the learning rate")
            run.step += 1
            bar.update()
            if run.step % 20 == 0:
                bar.set_postfix(loss=f"{loss:.4g}", **{n: f"{v:.3g}" for n, v in objective.monitor().items()})
            if run.step % plan.validate_every == 0 or run.step == plan.steps:
                _validate(run, objective)
            if run.step % plan.checkpoint_every == 0 or interrupted():
                _save(checkpoint, plan, run, objective, schedule)
                saved, saved_at = True, run.step
            if interrupted():
                raise KeyboardInterrupt
    return Result(run.weights, run.best_step, run.history)
