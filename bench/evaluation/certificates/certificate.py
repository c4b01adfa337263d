"""Certificates of gradients as values, without torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

PATH_CONTRIBUTION = 1e-9  # least relative change of the gradient without a path that contributes


@dataclass(frozen=True)
class Measurement:
    """Measurement of a certificate.

    Args:
        name: the comparison.
        value: the worst value.
        limit: upper limit of the value; lower limit, where `least` is set.
        least: the limit is a lower one.
        note: for the reader.
    """

    name: str
    value: float
    limit: float
    least: bool = False
    note: str = ""

    @property
    def passed(self) -> bool:
        """Return True if the value keeps to the limit; NaN does not."""
        return self.value >= self.limit if self.least else self.value <= self.limit


@dataclass(frozen=True)
class Certificate:
    """The certificate of one defense's gradients.

    Args:
        checks: the measurements.
        images: number of images measured.
        steps: steps of the purifier in the float64 checks that are not over all steps; None: there is no purifier.
    """

    checks: tuple[Measurement, ...]
    images: int
    steps: int | None

    @property
    def passed(self) -> bool:
        """Return True if all checks pass."""
        return all(c.passed for c in self.checks)

    @property
    def carries_no_gradient(self) -> bool:
        """Return True if checks fail, all of them because a path contributes no gradient."""
        return not self.passed and all(c.passed or c.limit == PATH_CONTRIBUTION for c in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """Return the certificate for JSON."""
        checks = [asdict(c) | {"passed": c.passed} for c in self.checks]
        return {"passed": self.passed, "images": self.images, "steps": self.steps, "checks": checks}


class NoGradient(Exception):
    """The logits have no graph to the image."""
