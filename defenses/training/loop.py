"""The training loop of all methods: progress, checkpoints, exact resumption, the best weights."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from tqdm import tqdm

from defenses.training.checkpoint import RunState, resume, save_checkpoint
from defenses.training.divergence import Diverged, check_gradient, check_weights
from defenses.training.objective import Objective
from defenses.training.phases import PhasedOptimizer
from defenses.training.plan import Plan
from defenses.training.streams import Order, seeded_step
from defenses.utils.errors import UserError

_DIVERGED = 1e9  # times the first loss; no training recovers


class _Clock:
    """Seconds of a training over all its resumptions."""

    def __init__(self, run: RunState):
        self._cpu, self._wall = time.process_time() - run.cpu_seconds, time.perf_counter() - run.seconds

    def read(self, run: RunState) -> None:
        """Set the times of a run."""
        run.cpu_seconds, run.seconds = time.process_time() - self._cpu, time.perf_counter() - self._wall


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


def _validate(run: RunState, objective: Objective) -> None:
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
        with objective.arithmetic.autocast(objective.device):
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


def has_dropout(network: nn.Module) -> bool:
    """Return True if a layer draws from the global generator; timm and RobustBench have layers of their own."""
    names = ("p", "drop_prob", "drop_rate", "droprate")
    rates = (getattr(module, name, 0.0) for module in network.modules() for name in names)
    return any(isinstance(rate, float) and rate > 0 for rate in rates)


@contextlib.contextmanager
def _explain_divergence(run: RunState, checkpoint: Path, schedule: PhasedOptimizer) -> Iterator[None]:
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
    dropout = has_dropout(objective.network.train())
    schedule, order = PhasedOptimizer(objective, plan.phases), Order(len(objective.data.x), plan.batch, plan.seed)
    run = resume(checkpoint, plan, objective, schedule) if checkpoint.exists() else RunState()
    clock = _Clock(run)
    bar = tqdm(total=plan.steps, initial=run.step, unit="step", disable=not progress, mininterval=1.0)
    with bar, _interrupt_after_step() as interrupted, _explain_divergence(run, checkpoint, schedule):
        while run.step < plan.steps and run.seconds < plan.time_limit:
            loss = training_step(objective, schedule, order, run.step, dropout)
            if run.step == 0:
                run.most = _DIVERGED * max(1.0, abs(loss))
            if loss > run.most:
                raise Diverged(f"loss {loss:.3g}")
            run.step += 1
            clock.read(run)
            bar.update()
            if run.step % 20 == 0:
                bar.set_postfix(loss=f"{loss:.4g}", **{n: f"{v:.3g}" for n, v in objective.monitor().items()})
            ends = run.step == plan.steps or run.seconds >= plan.time_limit
            validated = run.step % plan.validate_every == 0 or ends
            if validated:
                _validate(run, objective)
            clock.read(run)
            stops = interrupted()
            if validated or run.step % plan.checkpoint_every == 0 or stops:
                save_checkpoint(checkpoint, plan, run, objective, schedule)
            if stops:
                raise KeyboardInterrupt
    return Result(run.weights, run.best_step, run.history, run.cpu_seconds)
