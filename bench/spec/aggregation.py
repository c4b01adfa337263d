"""What the held-out draws of an image are combined to: mean, Rob(M), majority and mean logit of K."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from defenses.utils.errors import UserError

M = (5, 15)  # submissions of Rob(M), where a board does not say


@dataclass(frozen=True)
class Aggregation:
    """How many draws go into an aggregate.

    They read the same stored draws, so that m and k are no part of a cell's key; a sequential rule makes more, and is.

    Args:
        m: submissions of Rob(M); None: those of `M` for which there are draws.
        k: the first so many held-out draws make the majority vote and the mean logit; None: all.
        sequential: the error of a sequential rule, by which the majority is of more draws than are made of all images;
            the mean logit is of these. None: without.
    """

    m: tuple[int, ...] | None = None
    k: int | None = None
    sequential: float | None = None

    @property
    def rule(self) -> tuple[int, float] | None:
        """(K, error) of the sequential rule; None without one."""
        return None if self.k is None or self.sequential is None else (self.k, self.sequential)

    def check(self, draws: int) -> None:
        """Refuse what the draws of a stochastic defense do not suffice for.

        Args:
            draws: held-out ones of an image.

        Raises:
            UserError: fewer draws than an M or K, an even K, in which a vote may tie, or a sequential rule for draws
                that are made anyway.
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
            what = "draws" if self.k is None else "k"
            raise UserError(f"{what} is {k}, and a majority of an even number may tie; write {k - 1} or {k + 1}")
        if self.rule is not None:
            from bench.stats.sequential import Sequential

            Sequential(*self.rule)

    def as_dict(self) -> dict[str, Any]:
        """For the manifest: what is not the default."""
        said = {"m": None if self.m is None else list(self.m), "k": self.k, "sequential": self.sequential}
        return {name: value for name, value in said.items() if value is not None}


def aggregation_of(manifest: Mapping[str, Any]) -> Aggregation:
    """The protocols that a results folder was planned with (see `bench.store.manifest.read_manifest`)."""
    said = manifest.get("protocols") or {}
    return Aggregation(tuple(said["m"]) if said.get("m") else None, said.get("k"), said.get("sequential"))


def check_m(m: Sequence[int], draws: int) -> None:
    """Refuse an M for which there are too few draws.

    Args:
        m: submissions of Rob(M).
        draws: held-out ones of an image.

    Raises:
        UserError: fewer draws than an M.
    """
    for submissions in m:
        if submissions > draws:
            raise UserError(
                f"Rob({submissions}) takes {submissions} held-out draws of an image, and there are {draws}; "
                "raise draws, or lower m"
            )
