"""Sequential verdicts: decide each image by a prefix of its draws.

The rule reads the draws of the full count in their order. It stops when the predictive probability that the full count
decides otherwise is at most `error`, under a uniform prior on the accuracy: stochastic curtailment (Herson 1979; Lan,
Simon and Halperin 1982). Over images with uniformly distributed accuracies at most `error` of the decisions differ from
those of the full count; for an image right in half of its draws more may (`Sequential.worst_error`).
tests/benchmarks/bench_sequential.py compares it with Wald's SPRT and Pocock's boundary.

Stopped counts are biased, so the rule returns decisions and numbers of draws, and no counts: neither shares of draws
nor Rob(M) follow from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from bench.stats.proportions import rob_at_m
from defenses.utils.arrays import F64, I64, Bools
from defenses.utils.errors import UserError

LARGEST = 1001  # draws; the exact figures of a larger rule take minutes


@dataclass(frozen=True, eq=False)
class Decisions:
    """Decisions of a sequential rule on images.

    Args:
        right: True for images decided as right, bool [images].
        undecided: True where the draws do not decide, or one of them was not finite, bool [images].
        drawn: number of draws read of each image, int64 [images].
    """

    right: Bools
    undecided: Bools
    drawn: I64

    def __len__(self) -> int:
        return len(self.right)


@dataclass(frozen=True)
class Sequential:
    """Rule for deciding images by a prefix of at most `n_max` draws, fixed before any draw is made.

    Without `m` the decision is the majority's: right when more than half of the n_max draws are. With `m` it is a
    screening for M-resubmission: right when the full count gives the image at least an even chance of surviving m
    submissions, C(right, m) / C(n_max, m) >= 1/2. Images screened out are broken; a full count verifies the others.

    Args:
        n_max: draws of the full count, 1 to LARGEST; odd for a majority.
        error: probability of deciding otherwise than the full count at which to stop; in (0, 1/2).
        m: number of submissions, 1 to n_max; None: the majority.

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
        """Number of right draws of all n_max from which the full count decides "right"."""
        if self.m is None:
            return self.n_max // 2 + 1
        counts = np.arange(self.n_max + 1)
        return int(np.argmax(rob_at_m(counts, self.n_max, self.m) >= 0.5))

    @cached_property
    def bounds(self) -> tuple[I64, I64]:
        """Numbers of right draws that decide after n draws: (right from, wrong up to), int64 [n_max + 1] each.

        Where no number decides they are n + 1 and -1. Under a uniform prior, the probability that at least `need` of
        all draws are right, given c right ones of n, is hypergeometric: of n + 1 marks among n_max + 1 places at most
        c lie in the first `need`.
        """
        from scipy.stats import hypergeom  # slow to import

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
        """Smallest number of draws that decides any image."""
        upper, lower = self.bounds
        return int(np.argmax((upper <= np.arange(self.n_max + 1)) | (lower >= 0)))

    @cached_property
    def _exact(self) -> tuple[F64, F64]:
        """(Probability of deciding otherwise, expected draws) by number of right draws of the full count."""
        upper, lower = self.bounds
        total = np.arange(self.n_max + 1)[:, None]  # right draws of the full count
        c = np.arange(self.n_max + 2)
        undecided = np.zeros((self.n_max + 1, self.n_max + 2))  # probability by total and c
        undecided[:, 0] = 1
        error, drawn = np.zeros(self.n_max + 1), np.zeros(self.n_max + 1)
        for n in range(1, self.n_max + 1):
            drawn += undecided.sum(1)
            up = undecided * np.clip((total - c) / (self.n_max - n + 1), 0, 1)  # the order is random
            undecided = undecided - up
            undecided[:, 1:] += up[:, :-1]
            for stop, right in ((c >= upper[n], True), (c <= lower[n], False)):
                differs = (total[:, 0] >= self.need) != right
                error += undecided[:, stop].sum(1) * differs
                undecided[:, stop] = 0
        return error, drawn

    @property
    def worst_error(self) -> float:
        """Largest probability of deciding otherwise than the full count for any image; exact."""
        return float(self._exact[0].max())

    @property
    def mean_error(self) -> float:
        """Mean probability of deciding otherwise over uniformly distributed accuracies; exact, at most `error`."""
        return float(self._exact[0].mean())

    @property
    def mean_draws(self) -> float:
        """Mean number of draws per image over uniformly distributed accuracies; exact."""
        return float(self._exact[1].mean())

    def decide(self, correct: npt.ArrayLike) -> Decisions:
        """Decide images by their right draws.

        Draws after the one that decides have no effect.

        Args:
            correct: True for right draws, the first ones of each image, bool [images, draws], 1 to n_max draws.

        Returns:
            A decision per image.

        Raises:
            ValueError: another shape, or more draws than the rule has.
        """
        right = np.asarray(correct)
        if right.dtype != bool or right.ndim != 2 or not 1 <= right.shape[1] <= self.n_max:
            raise ValueError(f"correct must be bool [images, draws], 1 to {self.n_max} draws")
        return self._first_stop(np.cumsum(right, 1).astype(float))

    def decide_votes(self, pred: npt.ArrayLike, label: npt.ArrayLike) -> Decisions:
        """Decide images by the majority vote of `voting.majority`, where a class may win by less than half.

        The number of right draws is replaced by (draws + votes of the label - votes of its strongest rival) / 2, which
        equals it where all wrong votes agree on one class.

        Args:
            pred: predicted classes of the first draws, int [images, draws], 1 to n_max draws; a refusal is -1.
            label: right class, int [images].

        Returns:
            A decision per image.

        Raises:
            ValueError: another shape, or a rule with `m`.
        """
        votes, y = np.asarray(pred), np.asarray(label)
        if self.m is not None or votes.ndim != 2 or not 1 <= votes.shape[1] <= self.n_max or y.shape != votes.shape[:1]:
            raise ValueError(f"a majority rule and pred [images, draws], 1 to {self.n_max} draws, are needed")
        return self._first_stop(_lead(votes, y))

    def _first_stop(self, score: F64) -> Decisions:
        """Return the decisions at the first draw whose score meets a bound; whole or half numbers, [images, draws]."""
        n = score.shape[1]
        upper, lower = (bound[1 : n + 1] for bound in self.bounds)
        right = score >= upper
        # A vote tied after all draws lies between the bounds; it is wrong.
        stop = right | (score <= lower) | (np.arange(1, n + 1) == self.n_max)
        done, at = stop.any(1), stop.argmax(1)
        return Decisions(right[np.arange(len(score)), at] & done, ~done, np.where(done, at + 1, n))


def _lead(votes: I64, label: I64) -> F64:
    """Return (draws + votes of the label - votes of its strongest rival) / 2 after each draw, [images, draws]."""
    images, draws = votes.shape
    out = np.empty((images, draws))
    per_pass = max(1, (1 << 22) // draws**2)  # memory
    for begin in range(0, images, per_pass):
        v, y = votes[begin : begin + per_pass], label[begin : begin + per_pass, None]
        # Votes of draw i's class after each draw.
        count = np.cumsum(v[:, :, None] == v[:, None, :], 2)
        rival = np.where((v == y)[:, :, None], 0, count).max(1)
        out[begin : begin + per_pass] = (np.arange(1, draws + 1) + np.cumsum(v == y, 1) - rival) / 2
    return out
