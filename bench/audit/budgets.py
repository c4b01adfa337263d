"""Budgets of an audit."""

from __future__ import annotations

from dataclasses import dataclass

from defenses.utils.errors import unknown


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The sizes of an audit.

    Args:
        images: number of attacked images.
        steps: of the iterative attack.
        eot: copies of a randomised defense in a step, one run each.
        draws: held-out draws of a verdict on a randomised defense; half as many again choose the worst attack.
        queries: of Square.
        spsa: (iterations, samples in each) of SPSA.
        planted: images of the binarisation test.
        inner: points inside the ball for each readout of the binarisation test.
    """

    images: int
    steps: int
    eot: int
    draws: int
    queries: int
    spsa: tuple[int, int]
    planted: int
    inner: int


BUDGETS = {
    "quick": Budget(images=32, steps=40, eot=4, draws=16, queries=100, spsa=(10, 16), planted=20, inner=128),
    "full": Budget(images=200, steps=100, eot=16, draws=32, queries=1000, spsa=(50, 128), planted=100, inner=512),
}


def budget(name: str) -> Budget:
    """Return a budget by name.

    Raises:
        UserError: unknown name.
    """
    if name not in BUDGETS:
        raise unknown("budget", name, BUDGETS)
    return BUDGETS[name]
