"""Gradient ascent on many images, each with its step, step size, number of copies, stage and gradient mode.

Croce & Hein 2020 (APGD) and 2021 (APGD for L1), adapted to random defenses: their conditions for halving the step size
stay, but the best iterate is chosen by selection draws at checkpoints, and at every halving the number of copies grows.
Where noise exceeds progress, half of the steps seem to lose, and the step size falls at every checkpoint.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.attacks.adaptive import projections
from bench.attacks.adaptive.losses import Aim, image_losses, row_losses, suspicion
from bench.attacks.adaptive.problem import SPSA, Problem, Stage
from bench.attacks.adaptive.queries import Answer, Query
from bench.attacks.adaptive.selection import START, STEP, Selection, aim_at_rank
from bench.attacks.adaptive.settings import Settings
from bench.attacks.adaptive.spsa import estimated
from bench.attacks.noise import uniform_in_ball
from bench.spec.threat import ThreatModel, exact

_SELECT, _CONFIRM, _STEP = 0, 1, 2  # kinds of calls; from _STEP on, one kind per mode of the stages
_EVERY = (0.22, 0.03, 0.06)  # APGD's checkpoints, in shares of all steps: first interval, its shortening, the least
_EVERY_VARYING = (0.34, 0.07, 0.12)  # fewer, since each costs selection draws
_RISES = 0.75  # a smaller share of steps that gain halves the step size
_FRESH, _WARM, _PLAIN = 2.0, 1.0, 0.1  # first step size, in eps
_ENOUGH, _ENOUGH_VARYING = 1.0, 3.0  # cap of the loss against a detector: beyond it only the score matters
_L1_SPARSE, _L1_SHRINK, _L1_LEAST, _L1_SAME = 0.2, 1.5, 0.1, 0.95  # of APGD-L1


class _StageTable:
    """Columns of the stages' values, to look up items of different stages at once."""

    def __init__(self, stages: tuple[Stage, ...], device: torch.device, *, varying: bool):
        self.modes = tuple(dict.fromkeys(s.mode for s in stages))
        self.losses = tuple(dict.fromkeys(s.loss for s in stages))

        def column(values: list[int]) -> Tensor:
            return torch.tensor(values, device=device)

        self.mode = column([self.modes.index(s.mode) for s in stages])
        self.loss = column([self.losses.index(s.loss) for s in stages])
        self.rank = column([s.rank for s in stages])
        self.steps = column([s.steps for s in stages])
        self.judged = column([s.mode == self.modes[-1] for s in stages]).bool()
        self.fresh = column([s.fresh for s in stages]).bool()
        self.copied = column([s.mode == SPSA or (varying and s.mode != "blind") for s in stages]).bool()
        self.per_copy = column([1 + (s.mode == SPSA) for s in stages])


class Ascent:
    """A `Program` with one work item per image, which passes through the stages one after another.

    Args:
        problem: the images.
        query: of the defense.
        settings: steps, copies, selection.
        stages: see `Stage`.
        mode: gradient mode of the selection draws.
        varying: the defense is random.
        plain: PGD with a constant step size and no momentum.
    """

    def __init__(
        self,
        problem: Problem,
        query: Query,
        settings: Settings,
        stages: tuple[Stage, ...],
        mode: str,
        *,
        varying: bool,
        plain: bool,
    ):
        self.problem, self.query, self.eot, self.mode = problem, query, settings.eot, mode
        self.weight, self.enough = settings.detector, _ENOUGH_VARYING if varying else _ENOUGH
        self.stages, self.varying, self.plain = len(stages), varying, plain
        self.every = _EVERY_VARYING if varying else _EVERY
        self.selection = Selection(problem, query, settings, mode, varying=varying)
        n, device = len(problem.x), problem.x.device
        self.table = _StageTable(stages, device, varying=varying)
        counts = torch.zeros(7, n, dtype=torch.int64, device=device)
        self.kind, self.stage, self.step, self.checkpoint, self.interval, self.rises, self.halvings = counts
        self.stage -= 1  # the clean image counts as the last iterate of a stage before the first
        self.steps = torch.zeros_like(self.step)
        self.size, self.last, self.sparsity, self.changed = torch.zeros(4, n, device=device)
        self.rested = torch.zeros(n, dtype=torch.bool, device=device)  # the last checkpoint kept the step size
        # Best loss of the restart, now and at the last checkpoint.
        self.top, self.before_top = torch.full((2, n), -torch.inf, dtype=torch.float64, device=device)
        self.at, self.before, self.best = (problem.x.clone() for _ in range(3))

    def result(self) -> Tensor:
        """Return the chosen images, float32 [B, C, H, W]."""
        return self.selection.images

    def demand(self) -> tuple[Tensor, Tensor]:
        """Return kinds of calls and rows; see `Program`."""
        stage = self.stage.clamp_min(0)
        rows = self._copies(stage, self.halvings) * self.table.per_copy[stage]
        return self.kind.cpu(), torch.where(self.kind >= _STEP, rows, self.selection.draws).cpu()

    def advance(self, kind: int, items: Tensor) -> None:
        """Make a call for some items; see `Program`."""
        items = items.to(self.kind.device)
        if kind == _SELECT:
            loss, done = self.selection.offer(items, self.at[items])
            self._record_best(items, loss)
            self._finish(items[done])
            self._continue(items[~done])
        elif kind == _CONFIRM:
            passed = self.selection.confirmed(items, self.stage[items] + 1, self.step[items])
            self.kind[items[passed]] = -1
            self._continue(items[~passed])
        else:
            self._ascend(items, self.table.modes[kind - _STEP])

    def _copies(self, stage: Tensor, halvings: Tensor) -> Tensor:
        """Return the copies of a step, int64 [m]: they grow by sqrt(2) with every halving of the step size."""
        low, high = self.eot
        copies = (low * 2.0 ** (halvings.double() / 2)).round().clamp(max=high).long()
        return torch.where(self.table.copied[stage], copies, 1)

    def _record_best(self, items: Tensor, loss: Tensor) -> None:
        better = items[loss > self.top[items]]
        self.best[better], self.top[better] = self.at[better], loss[loss > self.top[items]]

    def _finish(self, items: Tensor) -> None:
        self.kind[items] = _CONFIRM if self.varying else -1

    def _continue(self, items: Tensor) -> None:
        """Send items after a checkpoint to the next step or stage, or end them."""
        over = self.step[items] >= self.steps[items]
        self._checkpoint(items[~over])
        out = over & (self.stage[items] + 1 >= self.stages)
        self.kind[items[out]] = -1
        self._begin(items[over & ~out])
        remaining = items[~out]
        self.kind[remaining] = _STEP + self.table.mode[self.stage[remaining]]

    def _begin(self, items: Tensor) -> None:
        """Set the first point and the counters of the next stage."""
        if not len(items):
            return
        p = self.problem
        self.stage[items] += 1
        stage = self.stage[items]
        fresh, x = self.table.fresh[stage], p.x[items]
        random = uniform_in_ball(x, ThreatModel(p.norm, exact(p.eps)), p.noise.rows(items).child(START, stage))
        start = torch.where(fresh.view(-1, 1, 1, 1), projections.project(x, random, p.norm, p.eps), self.best[items])
        self.at[items] = self.before[items] = self.best[items] = start
        self.top[items] = torch.where(fresh, -torch.inf, self.top[items])
        self.before_top[items] = self.top[items]
        sizes = (_PLAIN, _PLAIN) if self.plain else (1.0, 1.0) if p.norm == "L1" else (_FRESH, _WARM)
        self.size[items] = torch.where(fresh, *(p.eps * s for s in sizes))
        self.sparsity[items], self.changed[items] = _L1_SPARSE, 1.0
        self.step[items] = self.rises[items] = self.halvings[items] = 0
        self.rested[items] = False
        self.steps[items] = self.table.steps[stage]
        self.interval[items] = self.checkpoint[items] = (self.every[0] * self.steps[items]).long().clamp_min(1)

    def _ascend(self, items: Tensor, mode: str) -> None:
        """Take one step; selection follows at checkpoints, in the cheaper modes only at the end of a stage."""
        loss, gradient, done = self._gradient(items, mode)
        self._finish(items[done])
        items, loss, gradient = items[~done], loss[~done], gradient[~done]
        p, at, first = self.problem, self.at[items], self.step[items] == 0
        self.rises[items] += ((loss > self.last[items]) & ~first).long()
        self.last[items] = loss
        # Equal steps of many pixels never become sparse: plain PGD follows the gradient, which projection makes sparse.
        steepest = "L2" if self.plain and p.norm == "L1" else p.norm
        way = projections.direction(gradient, steepest, self.sparsity[items])
        momentum = torch.zeros_like(first) if self.plain else ~first
        ball = projections.Ball(p.x[items], p.norm, p.eps)
        self.at[items] = projections.step(ball, at, self.before[items], way, self.size[items], momentum)
        self.before[items] = at
        self.step[items] += 1
        over = self.step[items] >= self.steps[items]
        due = self.step[items] >= self.checkpoint[items]
        selecting = over | (due & self.table.judged[self.stage[items]])
        self.kind[items[selecting]] = _SELECT
        self._checkpoint(items[due & ~selecting])

    def _gradient(self, items: Tensor, mode: str) -> tuple[Tensor, Tensor, Tensor]:
        """Return (losses [m], gradients [m, C, H, W], bool [m]: decided), each of the loss of its stage."""
        stage, at = self.stage[items], self.at[items]
        noise = self.problem.noise.rows(items).child(STEP, stage, self.step[items])
        copies = self._copies(stage, self.halvings[items])
        aim = aim_at_rank(self.problem, self.selection.clean_logits, items, self.table.rank[stage])
        done = torch.zeros_like(items, dtype=torch.bool)
        if mode == SPSA:
            loss, gradient = estimated(
                self.query, at, noise, copies, self.mode, lambda answer: self._row_values(stage, aim, answer)
            )
            return loss, gradient, done
        answer, loss, gradient = self.query.gradient(
            at, noise, copies, mode, lambda answer: self._value(stage, aim, copies, answer)
        )
        if mode == self.mode and not self.varying:
            # Without noise the logits of a step are those of selection.
            selection_loss, done = self.selection.note(items, at, answer, copies)
            self._record_best(items, selection_loss)
        return loss, gradient, done

    def _value(self, stage: Tensor, aim: Aim, copies: Tensor, answer: Answer) -> Tensor:
        """Return the value of every image that the attack raises, [m]."""
        kinds = [self.selection.score if kind == "ce" else kind for kind in self.table.losses]
        loss = self._of_stage(stage, [image_losses(kind, answer.logits, aim, answer.item, copies) for kind in kinds])
        if answer.excess is None:
            return loss
        return loss.clamp_max(self.enough) - self.weight * suspicion(answer.excess, answer.item, copies)

    def _row_values(self, stage: Tensor, aim: Aim, answer: Answer) -> Tensor:
        """Return the value of every row, [R]."""
        rows, stages = aim.rows(answer.item), stage[answer.item]
        loss = self._of_stage(stages, [row_losses(kind, answer.logits, rows) for kind in self.table.losses])
        if answer.excess is None:
            return loss
        return loss.clamp_max(self.enough) - self.weight * answer.excess.clamp_min(0)

    def _of_stage(self, stage: Tensor, by_loss: list[Tensor]) -> Tensor:
        """Return, for every row or image, the value of its stage's loss."""
        values: Tensor = torch.stack(by_loss, 1).gather(1, self.table.loss[stage][:, None])
        return values.squeeze(1)

    def _checkpoint(self, items: Tensor) -> None:
        """Lower step sizes where due (Croce & Hein 2020, section 3.1), and set the next checkpoint."""
        if not self.plain:
            few = self.rises[items] < _RISES * self.interval[items]
            stalled = self.rested[items] & (self.top[items] <= self.before_top[items])
            smaller = self._sparser(items) if self.problem.norm == "L1" else few | stalled
            self.rested[items] = ~smaller
            at = items[smaller]
            self.halvings[at] += 1
            self.size[at] /= _L1_SHRINK if self.problem.norm == "L1" else 2
            if self.problem.norm == "L1":
                self.size[at] = self.size[at].clamp_min(_L1_LEAST * self.problem.eps)
            at = at[self.table.judged[self.stage[at]]]
            if self.problem.norm != "L1":
                self.at[at] = self.before[at] = self.best[at]
        self.before_top[items], self.rises[items] = self.top[items], 0
        _, shrink, least = self.every
        steps = self.steps[items]
        shorter = torch.maximum(self.interval[items] - shrink * steps, least * steps).long().clamp_min(1)
        self.interval[items] = shorter
        self.checkpoint[items] = self.step[items] + shorter

    def _sparser(self, items: Tensor) -> Tensor:
        """Set the sparsity of L1 steps to that of the best iterate, and return bool [m]: it has settled.

        Elsewhere the step size is reset, from the best iterate (Croce & Hein 2021, section 3.3).
        """
        p = self.problem
        changed = projections.changed(p.x[items], self.best[items])
        settled: Tensor = changed >= _L1_SAME * self.changed[items]
        self.changed[items], self.sparsity[items] = changed, changed / _L1_SHRINK
        again = items[~settled]
        self.size[again] = p.eps
        self.at[again] = self.before[again] = self.best[again]
        return settled
