"""Certificates of gradients as values, without torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, TypedDict

from defenses.utils.json_values import Json, JsonView

PATH_CONTRIBUTION = 1e-9  # least relative change of the gradient without a path that contributes
MOST_LEFT_OUT = 0.25  # largest share of points that a measurement leaves out

State = Literal["passed", "failed", "not measurable"]


@dataclass(frozen=True)
class Measurement:
    """Measurement of a certificate.

    Args:
        name: the comparison.
        value: the worst value, of the points that are not left out; 0 if all are.
        limit: upper limit of the value; lower limit, where `least` is set.
        least: the limit is a lower one.
        note: for the reader.
        points: number of points at which derivatives are compared; 0: it is not measured at points.
        left_out: number of points left out, since the function has a kink there.
        most: largest share of points that may be left out.
    """

    name: str
    value: float
    limit: float
    least: bool = False
    note: str = ""
    points: int = 0
    left_out: int = 0
    most: float = MOST_LEFT_OUT

    @property
    def state(self) -> State:
        """Return "failed" if the value, or NaN, misses the limit; else "passed" if enough points were measured."""
        if not (self.value >= self.limit if self.least else self.value <= self.limit):
            return "failed"
        return "passed" if self.left_out <= self.most * self.points else "not measurable"

    @property
    def passed(self) -> bool:
        """Return True if the value keeps to the limit, at enough points."""
        return self.state == "passed"


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
    def state(self) -> State:
        """Return "failed" if a check fails, else "not measurable" if a check is, else "passed"."""
        states = {c.state for c in self.checks}
        return "failed" if "failed" in states else "not measurable" if "not measurable" in states else "passed"

    @property
    def passed(self) -> bool:
        """Return True if all checks pass."""
        return self.state == "passed"

    @property
    def carries_no_gradient(self) -> bool:
        """Return True if checks fail, all of them because a path contributes no gradient."""
        return self.state == "failed" and all(c.passed or c.limit == PATH_CONTRIBUTION for c in self.checks)

    def as_dict(self) -> CertificateRecord:
        """Return the certificate for JSON."""
        checks = [asdict(c) | {"passed": c.passed, "state": c.state} for c in self.checks]
        return {
            "passed": self.passed,
            "state": self.state,
            "images": self.images,
            "steps": self.steps,
            "checks": checks,
        }


def rounded(value: float, limit: float) -> str:
    """Return a value as text: three digits, and more where these would not lie on its side of the limit."""
    texts = [f"{value:.{digits}g}" for digits in range(3, 18)]
    return next((t for t in texts if (float(t) < limit, float(t) > limit) == (value < limit, value > limit)), texts[0])


def state_of(content: JsonView) -> State:
    """Return the state of a stored certificate or of one of its checks; earlier versions have stored no third state."""
    if content.get("passed") is True:
        return "passed"
    return "not measurable" if content.get("state") == "not measurable" else "failed"


class CertificateRecord(TypedDict, total=False):
    """A stored certificate.

    Args:
        passed, state, images, steps, checks: of `Certificate`, where one was made.
        error: reason why none was made.
        note: for the reader.
        sources: the user's code and files that it is of, see `bench.execution.sources`.
    """

    passed: bool
    state: State
    images: int
    steps: int | None
    checks: list[dict[str, object]]
    error: str
    note: str
    sources: list[Json]


class NoGradient(Exception):
    """The logits have no graph to the image."""
