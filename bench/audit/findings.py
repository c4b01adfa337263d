"""What a check of the audit found: pass, fail or not applicable, with its evidence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["pass", "fail", "not applicable"]


@dataclass(frozen=True)
class Plot:
    """Curves or bars of one check.

    Args:
        kind: "line", "bar", or "rows": bars from left to right under long names.
        x_label: of the horizontal axis.
        y_label: of the vertical axis; rows have none.
        series: by name, (positions, values); a bar has a name for its position.
        limit: a line across at this value; None: none. Rows have none.
    """

    kind: Literal["line", "bar", "rows"]
    x_label: str
    y_label: str
    series: Mapping[str, tuple[tuple[float | str, ...], tuple[float, ...]]]
    limit: float | None = None


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Args:
        check: its name.
        status: "pass", "fail" or "not applicable".
        evidence: one line.
        numbers: what was measured, by name; None where that is not finite.
        images: data set indices of the images that speak against the defense's evaluation.
        plot: where there is a curve.
    """

    check: str
    status: Status
    evidence: str
    numbers: Mapping[str, float | None] = field(default_factory=dict)
    images: tuple[int, ...] = ()
    plot: Plot | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON, which has no infinity."""
        numbers = {name: v if v is not None and math.isfinite(v) else None for name, v in self.numbers.items()}
        return asdict(self) | {"numbers": numbers}

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> Finding:
        """What `as_dict` gave, after JSON."""
        plot = said["plot"]
        if plot is not None:
            series = {name: (tuple(at), tuple(values)) for name, (at, values) in plot["series"].items()}
            plot = Plot(**{**plot, "series": series})
        return cls(**{**said, "images": tuple(said["images"]), "plot": plot})


def not_applicable(check: str, why: str) -> Finding:
    """A check that says nothing about a defense."""
    return Finding(check, "not applicable", why)


def status_of(ok: bool) -> Status:
    """The status of a check that could be made."""
    return "pass" if ok else "fail"


@dataclass(frozen=True)
class Audit:
    """What was found of one defense.

    Args:
        label: of the defense.
        about: fingerprint, data set, threat, budget, seed: everything that it depends on.
        findings: of all checks.
    """

    label: str
    about: Mapping[str, Any]
    findings: tuple[Finding, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        """The names of the checks that failed."""
        return tuple(f.check for f in self.findings if f.status == "fail")

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        said = {"label": self.label, **self.about, "passed": not self.failed, "failed": list(self.failed)}
        return said | {"findings": [f.as_dict() for f in self.findings]}

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> Audit:
        """What `as_dict` gave, after JSON."""
        apart = {"label", "passed", "failed", "findings"}
        about = {key: value for key, value in said.items() if key not in apart}
        return cls(said["label"], about, tuple(Finding.from_dict(f) for f in said["findings"]))
