"""Checks of the accuracy as the ball grows (Carlini et al. 2019, section 5)."""

from __future__ import annotations

import math
from fractions import Fraction

from bench.audit.checks.strength import clearly, stronger_by
from bench.audit.findings import Finding, Plot, not_applicable, status_of
from bench.audit.subject import ImageAccuracies, Subject
from bench.stats.proportions import wilson

_GRID = (Fraction(1, 2), Fraction(1), Fraction(3, 2))  # multiples of the threat's radius
_UNBOUNDED = 0.02  # accuracy allowed where every image can be reached


def radii(subject: Subject) -> list[Finding]:
    """Check that accuracy falls with the radius: to chance at Linf 1/2, to 0 where the ball is the whole box."""
    large = _large_radii(subject)
    grid = sorted({min(subject.threat.eps * f, large[-1]) for f in _GRID} | set(large))
    curve = {eps: subject.white(eps=str(eps)) for eps in grid}
    return [_monotone(subject, curve), _half(subject, curve), _whole(subject, curve)]


def _large_radii(subject: Subject) -> list[Fraction]:
    """Return 1/2 and 1 under Linf; else the radius of a ball that holds the whole box."""
    pixels = subject.x[0].numel()
    if subject.threat.norm == "Linf":
        return [Fraction(1, 2), Fraction(1)]
    return [Fraction(math.isqrt(pixels - 1) + 1 if subject.threat.norm == "L2" else pixels)]


def _monotone(subject: Subject, curve: dict[Fraction, ImageAccuracies]) -> Finding:
    """Check that accuracy never rises with the radius."""
    steps = list(zip(curve, list(curve)[1:], strict=False))
    rises = {pair: stronger_by(curve[pair[1]], curve[pair[0]]) for pair in steps}
    rising = [f"from {a} to {b}" for (a, b), paired in rises.items() if clearly(paired)]
    shown = ", ".join(f"{o.accuracy:.1%} at {eps}" for eps, o in curve.items())
    plot = Plot(
        "line",
        f"{subject.threat.norm} radius",
        "accuracy",
        {"white box": (tuple(map(float, curve)), tuple(o.accuracy for o in curve.values()))},
        1 / subject.num_classes,
    )
    return Finding(
        "accuracy falls with the radius",
        status_of(not rising),
        shown + (f"; rises {' and '.join(rising)}" if rising else ""),
        {f"at {eps}": o.accuracy for eps, o in curve.items()},
        plot=plot,
    )


def _half(subject: Subject, curve: dict[Fraction, ImageAccuracies]) -> Finding:
    """Check that accuracy falls to chance at Linf 1/2."""
    check, chance = "chance at Linf 1/2", 1 / subject.num_classes
    if subject.threat.norm != "Linf":
        return not_applicable(check, f"the threat is {subject.threat.norm}")
    return _bounded(subject, check, curve[Fraction(1, 2)], chance, "every pixel may become grey")


def _whole(subject: Subject, curve: dict[Fraction, ImageAccuracies]) -> Finding:
    """Check that accuracy falls to 0 where the ball is the whole box."""
    radius = _large_radii(subject)[-1]
    return _bounded(subject, "nothing left when unbounded", curve[radius], _UNBOUNDED, f"{radius} reaches every image")


def _bounded(subject: Subject, check: str, outcome: ImageAccuracies, most: float, why: str) -> Finding:
    """Return a finding that fails when the lower end of the accuracy's interval exceeds a limit."""
    low, high = (float(v) for v in wilson(outcome.shares.sum(), len(outcome.shares)))
    return Finding(
        check,
        status_of(low <= most),
        f"accuracy {outcome.accuracy:.1%} [{low:.1%}, {high:.1%}], at most {most:.1%} may be left: {why}",
        {"accuracy": outcome.accuracy, "low": low, "high": high, "limit": most},
        subject.images(outcome.shares > 0.5) if low > most else (),
        Plot(
            "bar",
            "",
            "accuracy",
            {"accuracy": (("lower end", "measured", "upper end"), (low, outcome.accuracy, high))},
            most,
        ),
    )
