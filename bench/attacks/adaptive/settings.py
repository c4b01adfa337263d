"""Parameters of the adaptive attacks, and their checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from bench.attacks.budgets import check_params
from bench.spec.cell import Copies
from defenses.utils.errors import UserError, gathered
from defenses.utils.json_values import Json
from defenses.utils.validation import Count, Flag, Kind, NotNegative, number, validated

if TYPE_CHECKING:
    from bench.stats.sequential import Sequential

Loss = Literal["ce", "margin", "dlr", "ce-targeted", "margin-targeted", "dlr-targeted"]


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, list | tuple) and [*map(type, value)] == [int, int]:
        return value[0], value[1]
    raise ValueError


_LOSSES = Kind(f"a list of {', '.join(get_args(Loss))}", bool)
_COPIES = Kind(
    "a whole number of copies, or [first, last] of them",
    lambda v: 1 <= v[0] <= v[1],
    lambda v: _pair([v, v] if type(v) is int else v),
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of an adaptive attack.

    Args:
        steps: gradient steps of every stage (a stage is one gradient mode of one restart).
        restarts: number of restarts, on images that still stand.
        losses: of the restarts, in turn: "ce" (log-odds of the copies' mean probability, a smooth form of their
            accuracy), "margin" (Carlini & Wagner 2017), "dlr" (Croce & Hein 2020), or one of these with "-targeted":
            towards the likeliest wrong class of the clean image, the second time towards the next.
        eot: (first, last) number of copies of a randomised defense in a step: they grow by sqrt(2) when the step
            size is halved.
        draws: selection draws of an image: iterates are chosen by their mean loss over these.
        decided: the attack ends on an image when at most this share of its selection draws is right, and of as many
            new draws that confirm it; in [0, 0.5).
        majority: for boards of majority decisions alone, in place of `decided`: the attack ends on an image when a
            sequential rule of this many draws (`bench.stats.sequential`, error `RULE_ERROR`) decides that its majority
            is lost, by its selection draws and again by a prefix of new draws. 0: no such rule.
        screen: for boards of Rob(M) alone: (draws, M); the same, when the rule decides that the image has less than an
            even chance of surviving M submissions. The verdict counts the surviving images. None: no such rule.
        on_top: every copy combines the deployed S runs, in place of one run.
        rows: at most this many copies of images go through the defense at once; the images do not depend on it.
        queries: steps of the random search.
        detector: weight in the loss of a detector's score above its threshold; success is then a wrong class that is
            not refused. 0: detectors are ignored.
    """

    steps: Count = 50
    restarts: Count = 1
    losses: Annotated[tuple[Loss, ...], _LOSSES] = (
        "ce",
        "margin",
        "ce-targeted",
    )
    eot: Annotated[tuple[int, int], _COPIES] = (4, 64)
    draws: Count = 32
    decided: Annotated[float, Kind("at least 0 and less than 0.5", lambda v: 0 <= v < 0.5, number)] = 0.05
    majority: Count = 0
    screen: Annotated[tuple[int, int] | None, Kind("[draws, submissions], as [65, 5]", read=_pair)] = None
    on_top: Flag = False
    rows: Count = 2048
    queries: Count = 500
    detector: NotNegative = 0.0

    @property
    def rule(self) -> Sequential | None:
        """Return the sequential rule that ends the attack on an image; None: `decided` does.

        Raises:
            UserError: numbers that make no rule, or two rules.
        """
        from bench.stats.sequential import Sequential

        if self.majority and self.screen:
            raise UserError("majority and screen are two rules for one image; leave one out")
        if self.screen:
            return Sequential(self.screen[0], RULE_ERROR, self.screen[1])
        return Sequential(self.majority, RULE_ERROR) if self.majority else None


RULE_ERROR = 0.001  # small, since a rule decides on many iterates of an image
_COMMON = ("eot", "draws", "decided", "majority", "screen", "on_top", "rows", "detector")
_ASCENT = ("steps", "restarts", "losses", *_COMMON)
ATTACKS: dict[str, tuple[tuple[str, ...], Json]] = {  # name -> (parameters, defaults unlike `Settings`)
    # Fewer copies and draws than version 1 had: nearly as strong, at half of its evaluations (results/adaptive-cost).
    "adaptive": (_ASCENT, {"steps": 40, "eot": (2, 16), "draws": 16}),
    "apgd": (_ASCENT, {}),
    "pgd": (_ASCENT, {"eot": (8, 8)}),
    "transfer": (_ASCENT, {}),
    "spsa": (_ASCENT, {"eot": (32, 128), "losses": ("margin",)}),
    "square": (("queries", *_COMMON), {"eot": (8, 8)}),
}


def settings_of(local: str, params: Mapping[str, object]) -> Settings:
    """Return the settings of an attack.

    Args:
        local: its name.
        params: of the board.

    Raises:
        UserError: an unknown parameter, or a value out of range.
    """
    name, (names, defaults) = f"bench:{local}", ATTACKS[local]
    known = {**defaults, **{key: value for key, value in params.items() if key in names}}
    parts: list[Callable[[], Any]] = [
        lambda: check_params(name, params, names),
        lambda: validated(Settings, known, name=lambda loc: (f"{name}: {'.'.join(map(str, loc))}", "")),
    ]
    settings: Settings = gathered(lambda part: part(), parts)[1]
    if settings.majority or settings.screen:
        _ = settings.rule  # refuses numbers that make no rule
    return settings


def copies_of(settings: Settings) -> Copies:
    """Return the copies that an attack averages with these settings."""
    low, high = settings.eot
    return Copies(f"{low}-{high}" if high > low else str(low), settings.on_top)
