"""Square Attack (Andriushchenko et al. 2020), which accepts a change by the mean of paired draws.

In Linf it has the paper's stripes and squares; in L2 and L1 a square with one random sign per channel is added, of size
eps over its area, and the sum is projected: simpler than the paper's, which moves mass between windows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.attacks.adaptive import projections
from bench.attacks.adaptive.losses import image_losses, suspicion
from bench.attacks.adaptive.problem import Problem
from bench.attacks.adaptive.queries import Query
from bench.attacks.adaptive.selection import STEP, Selection
from bench.attacks.adaptive.settings import Settings
from defenses.core.noise import Draw, Noise

_SELECT, _CONFIRM, _STEP = 0, 1, 2  # kinds of calls
_AREA = 0.8  # of the first squares, as a share of the image
_HALVE = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries: then the area is halved
_CHECKS = 10  # selections of an image
_PLACE, _SIGNS, _STRIPES = range(1 << 32, (1 << 32) + 3)  # names of noise streams below a step's, which no copy has


class RandomSearch:
    """A `Program` with one work item per image.

    Iterate and candidate meet the same draws in a step, new in every step; the mean margin decides.

    Args:
        problem: the images.
        query: of the defense.
        settings: queries, copies, selection.
        mode: gradient mode of all calls.
        varying: the defense is random.
    """

    def __init__(self, problem: Problem, query: Query, settings: Settings, mode: str, *, varying: bool):
        self.problem, self.query, self.mode, self.queries = problem, query, mode, settings.queries
        self.varying, self.weight = varying, settings.detector
        self.copies = settings.eot[1] if varying else 1
        self.every = max(1, settings.queries // _CHECKS)
        self.selection = Selection(problem, query, settings, mode, varying=varying)
        n, device = len(problem.x), problem.x.device
        self.kind, self.step = torch.zeros(2, n, dtype=torch.int64, device=device)
        self.loss = torch.zeros(n, device=device)
        self.at = problem.x.clone()

    def result(self) -> Tensor:
        """Return the chosen images, float32 [B, C, H, W]."""
        return self.selection.images

    def demand(self) -> tuple[Tensor, Tensor]:
        """Return kinds of calls and rows; see `Program`."""
        sides = 2 if self.varying else 1
        return self.kind.cpu(), torch.where(self.kind == _STEP, sides * self.copies, self.selection.draws).cpu()

    def advance(self, kind: int, items: Tensor) -> None:
        """Make a call for some items; see `Program`."""
        items = items.to(self.kind.device)
        if kind == _STEP:
            self._try(items)
            return
        if kind == _SELECT:
            done = self.selection.offer(items, self.at[items])[1]
            self.kind[items[done]] = _CONFIRM if self.varying else -1
            going = items[~done]
        else:
            passed = self.selection.confirmed(items, self.step[items])
            self.kind[items[passed]] = -1
            going = items[~passed]
        self.kind[going] = torch.where(self.step[going] >= self.queries, -1, _STEP)

    def _try(self, items: Tensor) -> None:
        """Try one candidate for every image."""
        step, at = self.step[items], self.at[items]
        noise = self.problem.noise.rows(items).child(STEP, step)
        new = self._candidate(items, at, noise)
        if self.varying:
            now, then = self._losses(items.repeat(2), torch.cat([at, new]), Noise(noise.keys.repeat(2, 1))).chunk(2)
        else:
            now, then = self.loss[items], self._losses(items, new, noise)
        accepted = (then > now) | (step == 0)
        self.at[items[accepted]] = new[accepted]
        self.loss[items] = torch.where(accepted, then, now)
        self.step[items] += 1
        wrong = (self.loss[items] > 0) & accepted & torch.tensor(not self.varying, device=items.device)
        due = (self.step[items] % self.every == 0) | (self.step[items] >= self.queries) | wrong
        self.kind[items[due]] = _SELECT

    def _losses(self, items: Tensor, x: Tensor, noise: Noise) -> Tensor:
        """Return the mean margins of candidates, [m], less the weighted suspicion of a detector."""
        copies = torch.full_like(items, self.copies)
        answer = self.query.logits(x, noise, copies, self.mode)
        loss = image_losses("margin", answer.logits, self.problem.aim.rows(items), answer.item, copies)
        return loss if answer.excess is None else loss - self.weight * suspicion(answer.excess, answer.item, copies)

    def _candidate(self, items: Tensor, at: Tensor, noise: Noise) -> Tensor:
        """Return candidates [m, C, H, W]: stripes in the first step, then the iterate with a changed square."""
        p, x, step = self.problem, self.problem.x[items], self.step[items]
        c, h, w = x.shape[1:]
        first = (step == 0).view(-1, 1, 1, 1)
        stripes = noise.child(_STRIPES).draw(Draw((c, 1, w), "rademacher")).expand_as(x)
        signs = noise.child(_SIGNS).draw(Draw((c, 1, 1), "rademacher"))
        side = (self._area(step) * h * w).sqrt().round().long().clamp(1, min(h, w))
        corner = noise.child(_PLACE).draw(Draw((2,), "uniform"))
        top, left = ((corner[:, i] * (n - side + 1)).long() for i, n in enumerate((h, w)))
        inside = _within(top, side, h)[:, None, :, None] & _within(left, side, w)[:, None, None, :]
        if p.norm == "Linf":
            moved = torch.where(inside, x + p.eps * signs, at)
            return projections.project(x, torch.where(first, x + p.eps * stripes, moved), p.norm, p.eps)
        pixels = (c * side * side).view(-1, 1, 1, 1).to(x.dtype)
        size = p.eps / (pixels.sqrt() if p.norm == "L2" else pixels)
        moved = at + torch.where(inside, size * signs, torch.zeros_like(size))
        return projections.project(x, torch.where(first, x + p.eps * stripes, moved), p.norm, p.eps)

    def _area(self, step: Tensor) -> Tensor:
        """Return the area of the square as a share of the image, [m]."""
        scaled = step * 10000 // self.queries
        halvings = (scaled[:, None] > torch.tensor(_HALVE, device=step.device)).sum(1)
        return _AREA / 2.0**halvings


def _within(start: Tensor, side: Tensor, size: int) -> Tensor:
    """Return bool [m, size]: positions in [start, start + side)."""
    place = torch.arange(size, device=start.device)
    return (place >= start[:, None]) & (place < (start + side)[:, None])
