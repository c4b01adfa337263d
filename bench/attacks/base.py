"""The interface of attacks: a function on a view, and its properties that are known before it runs."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from bench.spec.cell import Copies
    from bench.spec.threat import ThreatModel


class Unsupported(Exception):
    """Unsupported pair of attack and threat, classes or images; the message is the reason for the table."""


def _load_nothing() -> None:
    """Do nothing: the attack has no library."""


def _no_notes(_threat: ThreatModel, _num_classes: int, _params: dict[str, object]) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True)
class Attack:
    """An attack, found by name.

    Args:
        name: as in a board, "autoattack:apgd-ce".
        run: `run(view, x, y, *, threat, target, seed, num_classes, indices=None, **params) -> x_adv`. x is float32
            [B, C, H, W] in [0, 1] and is not written into; y, target (None: untargeted) and indices (in the data set)
            are int64 [B]; x_adv is a new float32 tensor like x. One call is one batch of the library. Raises
            `Unsupported`; other exceptions of the library pass through.
        minimisation: the attack searches the nearest adversarial image and has no eps: images outside the ball do not
            count.
        version: library and version, for the cell's key.
        warnings: for the reader of the numbers (weak defaults); footnotes put the attack's label before them.
        notes: further warnings, which depend on `(threat, num_classes, params)`.
        copies: of a randomised defense that the attack averages by itself; None: those of the view.
        load: imports the library, so that the first call of `run` takes no longer than others; may raise `Unsupported`.
        stochastic_warnings: further warnings, on stochastic defenses alone.
    """

    name: str
    run: Callable[..., Any]
    minimisation: bool
    version: str
    warnings: tuple[str, ...] = ()
    notes: Callable[[ThreatModel, int, dict[str, object]], tuple[str, ...]] = field(default=_no_notes)
    copies: Copies | None = None
    load: Callable[[], object] = field(default=_load_nothing)
    stochastic_warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class AttackRequest:
    """The arguments of `Attack.run`, the view apart.

    Args:
        x: images, float32 [B, C, H, W] in [0, 1].
        y: labels, int64 [B].
        threat: norm, eps and targets.
        target: classes to reach, int64 [B]; None: untargeted.
        seed: of the attack.
        num_classes: K.
        indices: in the data set, int64 [B]; None: unknown.
        params: of the board.
    """

    x: Tensor
    y: Tensor
    threat: ThreatModel
    target: Tensor | None
    seed: int
    num_classes: int
    indices: Tensor | None
    params: Mapping[str, Any]


def keyword_form(run: Callable[[object, AttackRequest], Tensor]) -> Callable[..., Tensor]:
    """Return the function `Attack.run` of an adapter that takes (view, request)."""

    def run_attack(
        view: object,
        x: Tensor,
        y: Tensor,
        *,
        threat: ThreatModel,
        target: Tensor | None,
        seed: int,
        num_classes: int,
        indices: Tensor | None = None,
        **params: object,
    ) -> Tensor:
        return run(view, AttackRequest(x, y, threat, target, seed, num_classes, indices, params))

    return run_attack


def library_version(distribution: str) -> str | None:
    """Return the version of an installed distribution, without importing it; None if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
