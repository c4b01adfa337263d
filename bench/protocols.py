"""What the held-out draws of an image are combined to: mean, Rob(M), majority and mean logit of K."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from defenses.errors import UserError

M = (5, 15)  # submissions of Rob(M), where a board does not say


@dataclass(frozen=True)
class Protocols:
    """How many draws go into an aggregate; no part of a cell's key, since all read the same stored draws.

    Args:
        m: submissions of Rob(M); None: those of `M` for which there are draws.
        k: the first so many held-out draws make the majority vote and the mean logit; None: all.
    """

    m: tuple[int, ...] | None = None
    k: int | None = None

    def check(self, draws: int) -> None:
        """Refuse what the draws of a stochastic defense do not suffice for.

        Args:
            draws: held-out ones of an image.

        Raises:
            UserError: fewer draws than an M or K, or an even K, in which a vote may tie.
        """
        check_m(self.m or (), draws)
        k = draws if self.k is None else self.k
        if k > draws:
            raise UserError(f"a majority of {k} takes {k} draws of an image, and there are {draws}; raise draws")
        if k % 2 == 0:
            what = "draws" if self.k is None else "k"
            raise UserError(f"{what} is {k}, and a majority of an even number may tie; write {k - 1} or {k + 1}")

    def as_dict(self) -> dict[str, Any]:
        """For the manifest: what is not the default."""
        said = {"m": None if self.m is None else list(self.m), "k": self.k}
        return {name: value for name, value in said.items() if value is not None}


def protocols_of(manifest: Mapping[str, Any]) -> Protocols:
    """The protocols that a results folder was planned with (see `bench.manifest.read_manifest`)."""
    said = manifest.get("protocols") or {}
    return Protocols(tuple(said["m"]) if said.get("m") else None, said.get("k"))


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
