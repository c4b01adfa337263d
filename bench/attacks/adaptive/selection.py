"""Choosing iterates on selection draws, and letting images go that are decided."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.attacks.adaptive.losses import Aim, image_losses, image_means, refused, stands, unbroken, unbroken_combined
from bench.attacks.adaptive.problem import Problem
from bench.attacks.adaptive.queries import Answer, Query
from bench.attacks.adaptive.settings import Settings
from bench.attacks.base import Unsupported
from bench.stats.sequential import Sequential
from defenses.core.detector import Guarded
from defenses.core.noise import Noise

START, STEP, SELECT, CONFIRM = range(4)  # names of the noise streams
_ROUND = 8  # fresh draws that a sequential rule reads at once


class Selection:
    """The best iterate of every image by its mean loss over selection draws.

    All iterates of an image meet the same selection draws, which no step of the attack draws: one that is better on
    these is better, or lucky in the same draws as its rivals. An image is decided when at most the share `decided` of
    its selection draws is right and, since the best of many iterates may owe that to chance, of as many draws again
    that are fresh for every such claim. A draw is a copy; where copies stand for the S runs that a prediction combines,
    the share is that of such predictions (`losses.unbroken_combined`). A defense without noise is asked once. With
    `majority` or `screen` a sequential rule says when an image is decided, and reads as few fresh draws as it needs.

    Against a detector an iterate is as good as its loss or as the distance of its score below the threshold, whichever
    is less: above 0 both ends are reached, so no wrong image that is refused ranks before one that is not.

    Args:
        problem: the images.
        ask: the defense.
        settings: `draws`, `decided`, `majority` and `screen`.
        mode: whose values are those of the deployed defense.
        varying: whether the defense is random.

    Raises:
        Unsupported: a rule of predictions, where a draw is less than one.
    """

    def __init__(self, problem: Problem, ask: Query, settings: Settings, mode: str, *, varying: bool):
        n, device = len(problem.x), problem.x.device
        self.problem, self.ask, self.mode, self.varying = problem, ask, mode, varying
        self.draws = settings.draws if varying else 1
        self.limit, self.weight = settings.decided, settings.detector
        # A blind view asks the bare classifier: what is suspected there is purified, or refused.
        self.refuses = isinstance(ask.defense, Guarded) or mode == "blind"
        self.combines = ask.stands_for if varying and self.draws > 1 else 1
        self.rule = settings.rule if varying else None
        if self.rule is not None and ask.stands_for > 1:
            text = f"majority and screen are of predictions that combine {ask.stands_for} runs"
            raise Unsupported(f"{text}, and the attack's copies have one; write on_top = true")
        self.score = "ce-logits" if ask.averages_logits else "ce"
        self.images = problem.x.clone()
        self.loss = torch.full((n,), -torch.inf, dtype=torch.float64, device=device)
        self.clean_logits = torch.zeros(n, problem.num_classes, device=device)  # their means over selection draws

    def offer(self, items: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Judge iterates of some images on selection draws.

        Args:
            items: which, int64 [m].
            x: their iterates.

        Returns:
            (loss float64 [m], bool [m]: is better than all before and would be decided).
        """
        said = self._said(items, x, self.problem.noise.rows(items).child(SELECT))
        clean = torch.isinf(self.loss[items])  # they come first
        self.clean_logits[items[clean]] = image_means(said.logits, said.item, self._copies(items))[clean]
        return self.note(items, x, said, self._copies(items))

    def note(self, items: Tensor, x: Tensor, said: Answer, copies: Tensor) -> tuple[Tensor, Tensor]:
        """As `offer`, of answers that are there already."""
        aim = self.problem.aim.rows(items)
        loss = image_losses(self.score, said.logits.double(), aim, said.item, copies)
        if self.refuses and said.excess is not None:
            loss = torch.minimum(loss, -self.weight * image_means(said.excess[:, None], said.item, copies)[:, 0])
        better = loss > self.loss[items]
        at = items[better]
        self.images[at], self.loss[at] = x[better], loss[better]
        if self.rule is not None:
            return loss, better & self._by_rule(self.rule, self._stands(aim, said), len(items))[0]
        return loss, better & (self._standing(aim, said, copies) <= self.limit)

    def confirmed(self, items: Tensor, *when: Tensor) -> Tensor:
        """Bool [m]: whether the best iterates pass on draws that are fresh for `when`, each int64 [m]."""
        if self.rule is not None:
            return self._confirmed_by_rule(self.rule, items, when)
        said = self._said(items, self.images[items], self.problem.noise.rows(items).child(CONFIRM, *when))
        return self._standing(self.problem.aim.rows(items), said, self._copies(items)) <= self.limit

    def _confirmed_by_rule(self, rule: Sequential, items: Tensor, when: tuple[Tensor, ...]) -> Tensor:
        """Bool [m]: which the rule calls lost, by a prefix of their fresh draws."""
        lost, going = torch.zeros_like(items, dtype=torch.bool), torch.arange(len(items), device=items.device)
        seen = torch.zeros(len(items), 0, dtype=torch.bool, device=items.device)
        for begin in range(0, rule.n_max, _ROUND):
            at, size = items[going], min(_ROUND, rule.n_max - begin)
            noise = self.problem.noise.rows(at).child(CONFIRM, *(w[going] for w in when), begin)
            said = self.ask.logits(self.images[at], noise, torch.full_like(at, size), self.mode)
            new = self._stands(self.problem.aim.rows(at), said)
            seen = torch.cat([seen, new.view(len(at), -1)], 1)
            lost[going], undecided = self._by_rule(rule, seen, len(at))
            going, seen = going[undecided], seen[undecided]
            if not len(going):
                break
        return lost

    @staticmethod
    def _by_rule(rule: Sequential, standing: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """(Bool [n]: lost, bool [n]: undecided) by which draws of n images stand, in their order."""
        said = rule.decide(standing.view(n, -1)[:, : rule.n_max].cpu().numpy())
        undecided = torch.from_numpy(said.undecided).to(standing.device)
        return ~torch.from_numpy(said.right).to(standing.device) & ~undecided, undecided

    def _stands(self, aim: Aim, said: Answer) -> Tensor:
        """Bool [R]: which rows are right or refused."""
        standing = stands(said.logits, aim.rows(said.item))
        return standing if said.excess is None or not self.refuses else standing | (said.excess > 0)

    def _standing(self, aim: Aim, said: Answer, copies: Tensor) -> Tensor:
        share = self._right(aim, said, copies)
        if self.refuses and said.excess is not None:
            share = share + refused(said.excess, said.item, copies)  # at most so many are right or refused
        return share

    def _right(self, aim: Aim, said: Answer, copies: Tensor) -> Tensor:
        if self.combines == 1:
            return unbroken(said.logits, aim, said.item, copies)
        scores = said.logits if self.ask.averages_logits else said.logits.softmax(1)
        return unbroken_combined(scores, aim, said.item, copies, self.combines)

    def _said(self, items: Tensor, x: Tensor, noise: Noise) -> Answer:
        return self.ask.logits(x, noise, self._copies(items), self.mode)

    def _copies(self, items: Tensor) -> Tensor:
        return torch.full_like(items, self.draws)


def aim_at_rank(problem: Problem, logits: Tensor, items: Tensor, rank: Tensor) -> Aim:
    """What images aim at: their label's other classes, or the class at `rank` of their clean logits (0: neither).

    Args:
        problem: a target of the threat stays what it is.
        logits: of the clean images [B, K].
        items: which images, int64 [m].
        rank: int64 [m]; beyond the last class it begins again.
    """
    aim = problem.aim.rows(items)
    others = logits[items].scatter(1, aim.y[:, None], -torch.inf).argsort(1, descending=True)[:, :-1]
    ranked = others.gather(1, ((rank - 1).clamp_min(0) % others.shape[1])[:, None]).squeeze(1)
    towards = aim.towards | (rank > 0)
    return Aim(aim.y, torch.where(aim.towards, aim.t, ranked), towards)
