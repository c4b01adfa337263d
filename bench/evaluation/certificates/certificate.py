"""Certificates of gradients, without their measurement."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

_PATH = 1e-9  # relative change of the gradient without a path that contributes


@dataclass(frozen=True)
class Measurement:
    """One measurement of a certificate.

    Args:
        name: what was compared.
        value: the worst that was measured.
        limit: what it may be at most; at least, where `least` is set.
        least: whether the limit is a lower one.
        note: what a reader should know.
    """

    name: str
    value: float
    limit: float
    least: bool = False
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether it holds; NaN does not."""
        return self.value >= self.limit if self.least else self.value <= self.limit


@dataclass(frozen=True)
class Certificate:
    """What was measured for one defense.

    Args:
        checks: the measurements.
        images: how many images they were made on.
        steps: steps of the purifier in the float64 checks that are not over all; None where there is no purifier.
    """

    checks: tuple[Measurement, ...]
    images: int
    steps: int | None

    @property
    def passed(self) -> bool:
        """Whether all checks hold."""
        return all(c.passed for c in self.checks)

    @property
    def carries_no_gradient(self) -> bool:
        """Whether all that fails is that paths carry nothing."""
        return not self.passed and all(c.passed or c.limit == _PATH for c in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        checks = [asdict(c) | {"passed": c.passed} for c in self.checks]
        return {"passed": self.passed, "images": self.images, "steps": self.steps, "checks": checks}


class NoGradient(Exception):
    """The logits have no graph to the image."""
