"""Aggregations of the held-out draws of an image: mean, Rob(M), majority and mean logit of K."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from defenses.utils.errors import UserError
from defenses.utils.json_values import JsonView

M = (5, 15)  # default submissions of Rob(M)


@dataclass(frozen=True)
class Aggregation:
    """Numbers of draws in the aggregates.

    m and k choose among stored draws, so they are not part of a cell's key; a sequential rule makes further draws, so
    it is.

    Args:
        m: submissions of Rob(M); None: those of `M` for which there are enough draws.
        k: the first k held-out draws make the majority vote and the mean logit; None: all.
        sequential: error of the sequential rule that draws on for images whose majority is undecided; the mean logit
            is of the draws made of every image. None: no such rule.
    """

    m: tuple[int, ...] | None = None
    k: int | None = None
    sequential: float | None = None

    @property
    def rule(self) -> tuple[int, float] | None:
        """Return (K, error) of the sequential rule; None without one."""
        return None if self.k is None or self.sequential is None else (self.k, self.sequential)

    def check(self, draws: int) -> None:
        """Refuse aggregates for which a stochastic defense has too few draws.

        Args:
            draws: held-out draws of an image.

        Raises:
            UserError: fewer draws than an M or K, an even K (its vote may tie), or a sequential rule for no more draws
                than every image has.
        """
        check_m(self.m or (), draws)
        k = draws if self.k is None else self.k
        if self.sequential is not None and k <= draws:
            raise UserError(
                f"sequential is for a majority of more draws than the {draws} of every image; "
                f"write k = {4 * draws + 1}, say, or leave sequential out"
            )
        if self.sequential is None and k > draws:
            raise UserError(
                f"a majority of {k} takes {k} draws of an image, and there are {draws}; raise draws, or write "
                "sequential = 0.01 to draw on for the images that those leave undecided"
            )
        if k % 2 == 0:
            name = "draws" if self.k is None else "k"
            raise UserError(f"{name} is {k}, and a majority of an even number may tie; write {k - 1} or {k + 1}")
        if self.rule is not None:
            from bench.stats.sequential import Sequential

            Sequential(*self.rule)  # refuses numbers that make no rule

    def as_dict(self) -> dict[str, object]:
        """Return the values that differ from the defaults, for the manifest."""
        values = {"m": None if self.m is None else list(self.m), "k": self.k, "sequential": self.sequential}
        return {name: value for name, value in values.items() if value is not None}


def aggregation_of(manifest: JsonView) -> Aggregation:
    """Return the aggregation that a results folder was planned with (see `bench.store.manifest.read_manifest`)."""
    stored = manifest.get("protocols") or {}
    return Aggregation(tuple(stored["m"]) if stored.get("m") else None, stored.get("k"), stored.get("sequential"))


def check_m(m: Sequence[int], draws: int) -> None:
    """Refuse an M for which there are too few draws.

    Args:
        m: submissions of Rob(M).
        draws: held-out draws of an image.

    Raises:
        UserError: fewer draws than an M.
    """
    for submissions in m:
        if submissions > draws:
            raise UserError(
                f"Rob({submissions}) takes {submissions} held-out draws of an image, and there are {draws}; "
                "raise draws, or lower m"
            )
