"""The parameters of the attacks, and what they may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from bench.attacks.budgets import check_params
from bench.spec.cell import Copies
from defenses.utils.errors import UserError, unknown

if TYPE_CHECKING:
    from bench.stats.sequential import Sequential

LOSSES = ("ce", "margin", "dlr", "ce-targeted", "margin-targeted", "dlr-targeted")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to attack.

    Args:
        steps: gradient steps of every stage (a stage is one gradient mode of one restart).
        restarts: how often to begin again, on images that still stand.
        losses: of the restarts, in turn: "ce" (log-odds of the copies' mean probability, which is their accuracy
            made smooth), "margin" (Carlini & Wagner 2017), "dlr" (Croce & Hein 2020), or one of these with
            "-targeted": towards the likeliest wrong class of the clean image, the second time towards the next.
        eot: (first, last) number of copies of a randomised defense in a step: they grow by sqrt(2) when the step
            size is halved.
        draws: selection draws of an image: iterates are chosen by their mean loss over these.
        decided: an image leaves when at most this share of its selection draws is right, and of as many fresh ones
            that confirm it.
        majority: for boards of majority decisions alone: in place of `decided`, an image leaves when a sequential rule
            of so many draws (`bench.stats.sequential`, error `RULE_ERROR`) decides that its majority is lost, by its
            selection draws and again by a prefix of fresh ones. 0: not so.
        screen: for boards of Rob(M) alone: (draws, M); the same, when the rule decides that the image has less than an
            even chance of surviving M submissions. The verdict counts what survives. None: not so.
        on_top: every copy combines the deployed S runs, instead of being one run in their place.
        rows: at most this many copies of images go through the defense at once; the images do not depend on it.
        queries: steps of the random search.
        detector: against a detector beside the defense: the weight of its score, where that is above the threshold, in
            the loss; success is then a wrong class that is not refused. 0: no thought for detectors.
    """

    steps: int = 50
    restarts: int = 1
    losses: tuple[str, ...] = ("ce", "margin", "ce-targeted")
    eot: tuple[int, int] = (4, 64)
    draws: int = 32
    decided: float = 0.05
    majority: int = 0
    screen: tuple[int, int] | None = None
    on_top: bool = False
    rows: int = 2048
    queries: int = 500
    detector: float = 0.0

    @property
    def rule(self) -> Sequential | None:
        """Which decides that an image may leave; None: `decided` does.

        Raises:
            UserError: numbers that make no rule, or two rules.
        """
        from bench.stats.sequential import Sequential

        if self.majority and self.screen:
            raise UserError("majority and screen are two rules for one image; leave one out")
        if self.screen:
            return Sequential(self.screen[0], RULE_ERROR, self.screen[1])
        return Sequential(self.majority, RULE_ERROR) if self.majority else None


# Of 24 digits, ADP, bench:adaptive leaves 22.0% standing in Linf with 20 steps, 17.8% with 50, 16.3% with 100; of 200,
# PGD-AT, bench:square 66.5% with 200 queries, 60.5% with 500, 60.0% with 2000 [measured].
ENOUGH = {"steps": Settings.steps, "queries": Settings.queries}

RULE_ERROR = 0.001  # small, since many iterates of an image are looked at
_COMMON = ("eot", "draws", "decided", "majority", "screen", "on_top", "rows", "detector")
_ASCENT = ("steps", "restarts", "losses", *_COMMON)
ATTACKS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {  # name -> (its parameters, defaults other than above)
    "adaptive": (_ASCENT, {}),
    "apgd": (_ASCENT, {}),
    "pgd": (_ASCENT, {"eot": (8, 8)}),
    "transfer": (_ASCENT, {}),
    "spsa": (_ASCENT, {"eot": (32, 128), "losses": ("margin",)}),
    "square": (("queries", *_COMMON), {"eot": (8, 8)}),
}


def settings_of(local: str, params: Mapping[str, Any]) -> Settings:
    """The settings of one of the attacks.

    Args:
        local: its name.
        params: what a board gives.

    Raises:
        UserError: an unknown parameter, or a value out of range.
    """
    name, (known, defaults) = f"bench:{local}", ATTACKS[local]
    check_params(name, params, known)
    for key, value in params.items():
        if problem := _problem(key, value):
            raise UserError(f"{name}: {key} is {value!r}; it must be {problem}")
    for loss in params.get("losses", ()):
        if loss not in LOSSES:
            raise unknown(f"loss of {name}", str(loss), LOSSES)
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in params.items()}
    if type(given.get("eot")) is int:
        given["eot"] = (given["eot"],) * 2
    chosen = Settings(**{**defaults, **given})
    if chosen.majority or chosen.screen:
        _ = chosen.rule  # refuses what makes none
    return chosen


def copies_of(chosen: Settings) -> Copies:
    """Return the copies that an attack averages with these settings."""
    low, high = chosen.eot
    return Copies(f"{low}-{high}" if high > low else str(low), chosen.on_top)


def _problem(key: str, value: Any) -> str:
    """What a value ought to be; "" if it is that."""
    kind = next(f.type for f in fields(Settings) if f.name == key)
    if kind == "bool":
        return "" if type(value) is bool else "true or false"
    if key == "detector":
        return "" if type(value) in (int, float) and value >= 0 else "a number, at least 0"
    if kind == "float":
        good = type(value) in (int, float) and 0 <= value < 0.5
        return "" if good else "at least 0 and less than 0.5"
    if key == "losses":
        listed = isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0
        return "" if listed else f"a list of {', '.join(LOSSES)}"
    if key == "screen":
        good = isinstance(value, Sequence) and len(value) == 2 and all(type(v) is int for v in value)
        return "" if good else "[draws, submissions], as [65, 5]"
    if key == "eot":
        pair = [value, value] if type(value) is int else value
        good = isinstance(pair, Sequence) and len(pair) == 2 and all(type(v) is int for v in pair)
        return "" if good and 1 <= pair[0] <= pair[1] else "a whole number of copies, or [first, last] of them"
    return "" if type(value) is int and value >= 1 else "a whole number, at least 1"
