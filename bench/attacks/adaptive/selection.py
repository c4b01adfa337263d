"""Choose the best iterates by selection draws, and end the attack on decided images."""

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

    All iterates of an image meet the same selection draws, which no step of the attack draws. An image is decided when
    at most the share `decided` of its selection draws is right and, since the best of many iterates may be so by
    chance, also of as many new draws, made for this confirmation alone. A draw is a copy; where a prediction combines
    S copies, the share is that of such predictions (`losses.unbroken_combined`). A defense without noise makes one
    draw. With `majority` or `screen` a sequential rule decides instead, with as few new draws as it needs.

    Against a detector the loss of an iterate is the smaller of its loss and the distance of its score below the
    threshold: above 0 both aims are reached, so no refused image ranks before one that is not refused.

    Args:
        problem: the images.
        query: of the defense.
        settings: `draws`, `decided`, `majority` and `screen`.
        mode: gradient mode with the logits of the deployed defense.
        varying: the defense is random.

    Raises:
        Unsupported: a sequential rule, where a draw is less than a prediction.
    """

    def __init__(self, problem: Problem, query: Query, settings: Settings, mode: str, *, varying: bool):
        n, device = len(problem.x), problem.x.device
        self.problem, self.query, self.mode, self.varying = problem, query, mode, varying
        self.draws = settings.draws if varying else 1
        self.limit, self.weight = settings.decided, settings.detector
        # A blind view queries the bare classifier: suspected images would be purified or refused, so they count.
        self.refuses = isinstance(query.defense, Guarded) or mode == "blind"
        self.combines = query.stands_for if varying and self.draws > 1 else 1
        self.rule = settings.rule if varying else None
        if self.rule is not None and query.stands_for > 1:
            text = f"majority and screen are of predictions that combine {query.stands_for} runs"
            raise Unsupported(f"{text}, and the attack's copies have one; write on_top = true")
        self.score = "ce-logits" if query.averages_logits else "ce"
        self.images = problem.x.clone()
        self.loss = torch.full((n,), -torch.inf, dtype=torch.float64, device=device)
        self.clean_logits = torch.zeros(n, problem.num_classes, device=device)  # their means over selection draws

    def offer(self, items: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Judge iterates of some images on selection draws.

        Args:
            items: the images, int64 [m].
            x: their iterates, [m, C, H, W].

        Returns:
            (loss float64 [m], bool [m]: better than all iterates before, and decided but for the confirmation).
        """
        answer = self._answer(items, x, self.problem.noise.rows(items).child(SELECT))
        clean = torch.isinf(self.loss[items])  # the first iterate is the clean image
        self.clean_logits[items[clean]] = image_means(answer.logits, answer.item, self._copies(items))[clean]
        return self.note(items, x, answer, self._copies(items))

    def note(self, items: Tensor, x: Tensor, answer: Answer, copies: Tensor) -> tuple[Tensor, Tensor]:
        """Judge iterates by an answer that exists already; see `offer`."""
        aim = self.problem.aim.rows(items)
        loss = image_losses(self.score, answer.logits.double(), aim, answer.item, copies)
        if self.refuses and answer.excess is not None:
            loss = torch.minimum(loss, -self.weight * image_means(answer.excess[:, None], answer.item, copies)[:, 0])
        better = loss > self.loss[items]
        at = items[better]
        self.images[at], self.loss[at] = x[better], loss[better]
        if self.rule is not None:
            return loss, better & self._by_rule(self.rule, self._stands(aim, answer), len(items))[0]
        return loss, better & (self._standing(aim, answer, copies) <= self.limit)

    def confirmed(self, items: Tensor, *when: Tensor) -> Tensor:
        """Return bool [m]: the best iterates pass on new draws, keyed by `when`, each int64 [m]."""
        if self.rule is not None:
            return self._confirmed_by_rule(self.rule, items, when)
        answer = self._answer(items, self.images[items], self.problem.noise.rows(items).child(CONFIRM, *when))
        return self._standing(self.problem.aim.rows(items), answer, self._copies(items)) <= self.limit

    def _confirmed_by_rule(self, rule: Sequential, items: Tensor, when: tuple[Tensor, ...]) -> Tensor:
        """Return bool [m]: the rule decides that the image is lost, by a prefix of its new draws."""
        lost, left = torch.zeros_like(items, dtype=torch.bool), torch.arange(len(items), device=items.device)
        standing = torch.zeros(len(items), 0, dtype=torch.bool, device=items.device)
        for begin in range(0, rule.n_max, _ROUND):
            at, size = items[left], min(_ROUND, rule.n_max - begin)
            noise = self.problem.noise.rows(at).child(CONFIRM, *(w[left] for w in when), begin)
            answer = self.query.logits(self.images[at], noise, torch.full_like(at, size), self.mode)
            new = self._stands(self.problem.aim.rows(at), answer)
            standing = torch.cat([standing, new.view(len(at), -1)], 1)
            lost[left], undecided = self._by_rule(rule, standing, len(at))
            left, standing = left[undecided], standing[undecided]
            if not len(left):
                break
        return lost

    @staticmethod
    def _by_rule(rule: Sequential, standing: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """Return (bool [n]: lost, bool [n]: undecided) by the draws of n images that stand, bool, in their order."""
        decisions = rule.decide(standing.view(n, -1)[:, : rule.n_max].cpu().numpy())
        undecided = torch.from_numpy(decisions.undecided).to(standing.device)
        return ~torch.from_numpy(decisions.right).to(standing.device) & ~undecided, undecided

    def _stands(self, aim: Aim, answer: Answer) -> Tensor:
        """Return bool [R]: rows that are right or refused."""
        standing = stands(answer.logits, aim.rows(answer.item))
        return standing if answer.excess is None or not self.refuses else standing | (answer.excess > 0)

    def _standing(self, aim: Aim, answer: Answer, copies: Tensor) -> Tensor:
        """Return an upper bound of the share of predictions that are right or refused, [m]."""
        share = self._right(aim, answer, copies)
        if self.refuses and answer.excess is not None:
            share = share + refused(answer.excess, answer.item, copies)
        return share

    def _right(self, aim: Aim, answer: Answer, copies: Tensor) -> Tensor:
        """Return the share of predictions that have not reached the aim, [m]."""
        if self.combines == 1:
            return unbroken(answer.logits, aim, answer.item, copies)
        scores = answer.logits if self.query.averages_logits else answer.logits.softmax(1)
        return unbroken_combined(scores, aim, answer.item, copies, self.combines)

    def _answer(self, items: Tensor, x: Tensor, noise: Noise) -> Answer:
        return self.query.logits(x, noise, self._copies(items), self.mode)

    def _copies(self, items: Tensor) -> Tensor:
        return torch.full_like(items, self.draws)


def aim_at_rank(problem: Problem, logits: Tensor, items: Tensor, rank: Tensor) -> Aim:
    """Return the aims of images: towards the wrong class at `rank` of their clean logits, or as the problem has them.

    Args:
        problem: its targets stay.
        logits: of the clean images [B, K].
        items: the images, int64 [m].
        rank: int64 [m], 1 is the likeliest wrong class, beyond the last class it begins again; 0: as the problem.
    """
    aim = problem.aim.rows(items)
    others = logits[items].scatter(1, aim.y[:, None], -torch.inf).argsort(1, descending=True)[:, :-1]
    ranked = others.gather(1, ((rank - 1).clamp_min(0) % others.shape[1])[:, None]).squeeze(1)
    towards = aim.towards | (rank > 0)
    return Aim(aim.y, torch.where(aim.towards, aim.t, ranked), towards)
