"""Specifications of attack views, without torch."""

from __future__ import annotations

from dataclasses import dataclass

from defenses.core.gradient_modes import parsed, spelled
from defenses.utils.errors import UserError, unknown

OUTPUTS = ("logits", "log-mean-prob")
SEEDS = ("fresh", "known")


@dataclass(frozen=True)
class ViewSpec:
    """The access of an attacker to a defense.

    Args:
        gradient: one of `defenses.core.gradient_modes.MODES`, as "exact" (through every step), "bpda" (identity
            backward) or "blind" (the bare classifier). "surrogate", "smooth" and "difference" take a number, as
            "surrogate:25" (`defenses.core.gradient_modes.NUMBERS`).
        eot: predictions averaged in one call (expectation over transformation), at least 1.
        runs: runs that each of these combines, at least 1; None: the deployed number S, so that copies multiply S;
            1: copies replace the S runs.
        output: "logits" (mean logits of the copies) or "log-mean-prob" (log of their mean softmax).
        seed: "fresh" (every call draws new noise) or "known": the attacker knows the noise of the verdict's only draw,
            so that the defense is deterministic (`bench.evaluation.verdict.known_noise`).

    Raises:
        UserError: a value out of range.
    """

    gradient: str = "exact"
    eot: int = 1
    runs: int | None = None
    output: str = "logits"
    seed: str = "fresh"

    def __post_init__(self) -> None:
        object.__setattr__(self, "gradient", spelled(self.gradient))
        if self.output not in OUTPUTS:
            raise unknown("view output", str(self.output), OUTPUTS)
        if self.seed not in SEEDS:
            raise unknown("seed of a view", str(self.seed), SEEDS)
        for name in ("eot", "runs"):
            value = getattr(self, name)
            if not (name == "runs" and value is None) and (type(value) is not int or value < 1):
                raise UserError(f"{name} is {value}; it must be a whole number, at least 1")
        if self.known and self.gradient == "blind":
            raise UserError('a blind attacker cannot use a known seed; leave out seed = "known", or "blind"')
        if self.known and (self.eot > 1 or self.runs is not None):
            raise UserError("with the seed known there is one draw, the deployed one; leave out eot and runs")

    @property
    def mode(self) -> str:
        """Return the gradient mode without its number."""
        return parsed(self.gradient)[0]

    @property
    def known(self) -> bool:
        """Return True if the attacker knows the seed."""
        return self.seed == "known"

    def label(self, stochastic: bool, *, has_runs: bool = True, eot: str = "", runs: int | None = None) -> str:
        """Return the label for tables: "exact", "bpda, 8 EOT x S runs" (S deployed runs), "exact, 8 EOT x 1 run".

        Args:
            stochastic: the defense is stochastic.
            has_runs: its predictions combine runs.
            eot: copies that the attack makes itself; "": those of the view.
            runs: runs of each copy that the attack makes; None: S.
        """
        if not stochastic or self.gradient == "blind":
            return self.gradient
        if self.known:
            return f"{self.gradient}, seed known"
        each = runs if eot else self.runs
        count = "S runs" if each is None else f"{each} run{'s' if each > 1 else ''}"
        output = "" if self.output == "logits" else f", {self.output}"
        return f"{self.gradient}, {eot or self.eot} EOT{f' x {count}' if has_runs else ''}{output}"
