"""Sequential verdicts: stop drawing for an image as soon as more draws would hardly change its decision.

The rule reads a prefix of the draws of the full count, in their order. It stops when the chance that the full count
decides otherwise is at most `error`, given the draws so far and that every accuracy is as likely before any draw:
stochastic curtailment by the predictive probability (Herson 1979; Lan, Simon and Halperin 1982). So over images whose
accuracies are spread evenly at most `error` of the decisions differ from those of the full count; of an image right
in just half of its draws more of them do (`Sequential.worst_error`). Wald's SPRT and Pocock's boundary need as many
draws or more for the same agreement (tests/benchmarks/bench_sequential.py).

A stopped count is biased. So what comes out is a decision per image and how many draws it took, and no count: nothing
that n/N or Rob(M) could be made of.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from bench.stats.proportions import rob_at_m
from defenses.utils.arrays import F64, I64, Bools
from defenses.utils.errors import UserError

LARGEST = 1001  # draws; a rule of more would take minutes to work out


@dataclass(frozen=True, eq=False)
class Decisions:
    """What a sequential rule says of images: decisions to be counted, over images, and nothing else.

    Args:
        right: bool [images]: decided, as right; no other image counts as right.
        undecided: bool [images]: the draws do not decide, or one of them was not finite.
        drawn: int64 [images]: draws that were read of each, a cost.
    """

    right: Bools
    undecided: Bools
    drawn: I64

    def __len__(self) -> int:
        return len(self.right)


@dataclass(frozen=True)
class Sequential:
    """A rule for deciding images by a prefix of at most `n_max` draws; fixed before any of them is seen.

    Without `m` the decision is the majority's: right when more than half of the n_max draws are. With it, a screening
    for M-resubmission: right when the full count gives the image at least an even chance of surviving m submissions,
    C(right, m) / C(n_max, m) >= 1/2. What is screened out is broken; what is left is verified by a full count.

    Args:
        n_max: draws of the full count.
        error: the largest chance of deciding otherwise than the full count, at which to stop; in (0, 1/2).
        m: submissions; None: the majority.

    Raises:
        UserError: a majority of an even number of draws, fewer draws than m, a number out of range.
    """

    n_max: int
    error: float = 0.01
    m: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.n_max <= LARGEST:
            raise UserError(f"a sequential rule of {self.n_max} draws; take 1 to {LARGEST}")
        if not 0 < self.error < 0.5:
            raise UserError(f"the error rate {self.error} lies outside (0, 0.5); take 0.01, say")
        if self.m is None and self.n_max % 2 == 0:
            raise UserError(f"a majority of {self.n_max} draws can tie; take an odd number, as {self.n_max + 1}")
        if self.m is not None and not 1 <= self.m <= self.n_max:
            raise UserError(f"{self.m} submissions cannot be judged by {self.n_max} draws; take at least as many draws")

    @cached_property
    def need(self) -> int:
        """Right draws of all n_max that make the full count decide "right"."""
        if self.m is None:
            return self.n_max // 2 + 1
        counts = np.arange(self.n_max + 1)
        return int(np.argmax(rob_at_m(counts, self.n_max, self.m) >= 0.5))

    @cached_property
    def bounds(self) -> tuple[I64, I64]:
        """After n draws (index, 0 to n_max): right from so many right ones on; wrong up to so many; int64 each.

        Where no number decides they are n + 1 and -1. Under an even spread the chance that of all draws at least
        `need` are right, c of n being so, is hypergeometric: of n + 1 marks among n_max + 1 places at most c lie in
        the first `need`.
        """
        from scipy.stats import hypergeom

        n, c = np.arange(self.n_max + 1)[:, None], np.arange(self.n_max + 1)
        law = hypergeom(self.n_max + 1, n + 1, self.need)
        possible = c <= n
        right = possible & (law.sf(c) <= self.error) & (n > 0)
        wrong = possible & (law.cdf(c) <= self.error) & (n > 0)
        upper = np.where(right.any(1), right.argmax(1), n[:, 0] + 1)
        lower = np.where(wrong.any(1), wrong.sum(1) - 1, -1)
        return upper.astype(np.int64), lower.astype(np.int64)

    @cached_property
    def first(self) -> int:
        """The smallest number of draws that decides any image."""
        upper, lower = self.bounds
        return int(np.argmax((upper <= np.arange(self.n_max + 1)) | (lower >= 0)))

    @cached_property
    def _exact(self) -> tuple[F64, F64]:
        """(Chance to decide otherwise, expected draws) by right draws of the full count."""
        upper, lower = self.bounds
        total = np.arange(self.n_max + 1)[:, None]  # of the full count
        c = np.arange(self.n_max + 2)
        going = np.zeros((self.n_max + 1, self.n_max + 2))
        going[:, 0] = 1
        otherwise, drawn = np.zeros(self.n_max + 1), np.zeros(self.n_max + 1)
        for n in range(1, self.n_max + 1):
            drawn += going.sum(1)
            up = going * np.clip((total - c) / (self.n_max - n + 1), 0, 1)  # the order is random
            going = going - up
            going[:, 1:] += up[:, :-1]
            for stop, right in ((c >= upper[n], True), (c <= lower[n], False)):
                wrongly = (total[:, 0] >= self.need) != right
                otherwise += going[:, stop].sum(1) * wrongly
                going[:, stop] = 0
        return otherwise, drawn

    @property
    def worst_error(self) -> float:
        """The chance of deciding otherwise than the full count for the image where it is largest; exact."""
        return float(self._exact[0].max())

    @property
    def mean_error(self) -> float:
        """The same for images whose accuracies are spread evenly; exact, at most `error`."""
        return float(self._exact[0].mean())

    @property
    def mean_draws(self) -> float:
        """Draws per image for images whose accuracies are spread evenly; exact."""
        return float(self._exact[1].mean())

    def decide(self, correct: npt.ArrayLike) -> Decisions:
        """Decide images by which of their draws are right.

        Draws beyond the one that decides do not matter: a prefix decides for all its continuations.

        Args:
            correct: the first draws of each image, bool [images, draws], at most n_max.

        Raises:
            ValueError: another shape, or more draws than the rule has.
        """
        right = np.asarray(correct)
        if right.dtype != bool or right.ndim != 2 or not 1 <= right.shape[1] <= self.n_max:
            raise ValueError(f"correct must be bool [images, draws], 1 to {self.n_max} draws")
        return self._first_stop(np.cumsum(right, 1).astype(float))

    def decide_votes(self, pred: npt.ArrayLike, label: npt.ArrayLike) -> Decisions:
        """Decide the majority vote of `proportions.majority`, which a class may win with less than half of the votes.

        A vote counts for its lead: (draws + votes of the label - votes of its strongest rival) / 2 takes the place of
        the number of right draws, which it is where all the others agree on one class.

        Args:
            pred: the first predicted classes of each image, int [images, draws], 1 to n_max; a refusal is -1.
            label: int [images].

        Raises:
            ValueError: another shape, or a rule of submissions, which are no votes.
        """
        votes, y = np.asarray(pred), np.asarray(label)
        if self.m is not None or votes.ndim != 2 or not 1 <= votes.shape[1] <= self.n_max or y.shape != votes.shape[:1]:
            raise ValueError(f"a majority rule and pred [images, draws], 1 to {self.n_max} draws, are needed")
        return self._first_stop(_scores(votes, y))

    def _first_stop(self, score: F64) -> Decisions:
        """Decisions at the first draw whose score meets a bound; whole or half numbers, [images, draws]."""
        n = score.shape[1]
        upper, lower = (bound[1 : n + 1] for bound in self.bounds)
        right = score >= upper
        # A vote that is tied after all draws lies between the bounds, and is wrong.
        stop = right | (score <= lower) | (np.arange(1, n + 1) == self.n_max)
        done, at = stop.any(1), stop.argmax(1)
        return Decisions(right[np.arange(len(score)), at] & done, ~done, np.where(done, at + 1, n))


def _scores(votes: I64, label: I64) -> F64:
    """(draws + votes of the label - votes of its strongest rival) / 2 after each draw, [images, draws]."""
    images, draws = votes.shape
    out = np.empty((images, draws))
    per_pass = max(1, (1 << 22) // draws**2)  # memory
    for begin in range(0, images, per_pass):
        v, y = votes[begin : begin + per_pass], label[begin : begin + per_pass, None]
        # By draw i: how many votes its class has after each draw.
        count = np.cumsum(v[:, :, None] == v[:, None, :], 2)
        rival = np.where((v == y)[:, :, None], 0, count).max(1)
        out[begin : begin + per_pass] = (np.arange(1, draws + 1) + np.cumsum(v == y, 1) - rival) / 2
    return out
