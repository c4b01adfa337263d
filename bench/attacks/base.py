"""What an attack is to the harness: a function on a view, and what is known about it before it runs."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.spec.cell import Copies
    from bench.spec.threat import ThreatModel


class Unsupported(Exception):
    """A pair of attack and threat, classes or images that cannot run; the message is the reason for the table."""


def _nothing() -> None:
    """An attack without a library of its own."""


def _no_notes(threat: ThreatModel, num_classes: int, params: dict[str, Any]) -> tuple[str, ...]:  # noqa: ARG001
    return ()


@dataclass(frozen=True)
class Attack:
    """An attack, found by name.

    Args:
        name: as in a board, "autoattack:apgd-ce".
        run: `run(view, x, y, *, threat, target, seed, num_classes, indices=None, **params) -> x_adv`. x is float32
            [B, C, H, W] in [0, 1] and is left as it is; y, target (None: untargeted) and indices (in the data set)
            are int64 [B]; x_adv is a fresh float32 tensor like x. One call is one batch of the library. Raises
            `Unsupported`; anything else that the library raises goes through.
        minimisation: the attack looks for the nearest adversarial image and knows no eps: its images may lie
            outside the ball, and then they do not count.
        version: library and version, for the cell's key.
        warnings: what a reader of the numbers has to know (weak defaults); footnotes put the attack's label before it.
        notes: further warnings, which depend on `(threat, num_classes, params)`.
        copies: of a randomised defense that the attack averages by itself; None: those of the view.
        load: imports the library, so that the first call of `run` takes no longer than others; may raise `Unsupported`.
    """

    name: str
    run: Callable[..., Any]
    minimisation: bool
    version: str
    warnings: tuple[str, ...] = ()
    notes: Callable[[ThreatModel, int, dict[str, Any]], tuple[str, ...]] = field(default=_no_notes)
    copies: Copies | None = None
    load: Callable[[], object] = field(default=_nothing)


def library_version(distribution: str) -> str | None:
    """The version of an installed distribution, without importing it; None if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
