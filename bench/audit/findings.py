"""Findings of an audit: pass, fail, not applicable or not measurable, with evidence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from defenses.utils.json_values import Json, JsonView
from defenses.utils.text import clean

Status = Literal["pass", "fail", "not applicable", "not measurable"]


@dataclass(frozen=True)
class Plot:
    """Curves or bars of a check.

    Args:
        kind: "line", "bar", or "rows" (horizontal bars under long names).
        x_label: of the horizontal axis.
        y_label: of the vertical axis; rows have none.
        series: by name, (positions, values); a bar has a name for its position.
        limit: value of a horizontal line; None: no line. Rows have none.
    """

    kind: Literal["line", "bar", "rows"]
    x_label: str
    y_label: str
    series: Mapping[str, tuple[tuple[float | str, ...], tuple[float, ...]]]
    limit: float | None = None


@dataclass(frozen=True)
class Finding:
    """The outcome of a check.

    Args:
        check: its name.
        status: "pass", "fail", "not applicable", or "not measurable" where neither a pass nor a fault was shown.
        evidence: one line.
        numbers: measured values by name; None where one is not finite.
        images: positions in the data set of the images that contradict the evaluation.
        plot: of the values, if any.
    """

    check: str
    status: Status
    evidence: str
    numbers: Mapping[str, float | None] = field(default_factory=dict)
    images: tuple[int, ...] = ()
    plot: Plot | None = None

    def as_dict(self) -> dict[str, object]:
        """Return the finding for JSON, which has no infinity."""
        numbers = {name: v if v is not None and math.isfinite(v) else None for name, v in self.numbers.items()}
        return asdict(self) | {"numbers": numbers}

    @classmethod
    def from_dict(cls, content: JsonView) -> Finding:
        """Return the finding of `as_dict`, after JSON."""
        plot = content["plot"]
        if plot is not None:
            series = {name: (tuple(at), tuple(values)) for name, (at, values) in plot["series"].items()}
            plot = Plot(**{**plot, "series": series})
        return cls(**{**content, "images": tuple(content["images"]), "plot": plot})


def not_applicable(check: str, why: str) -> Finding:
    """Return the finding of a check that does not apply to a defense."""
    return Finding(check, "not applicable", why)


def status_of(ok: bool) -> Status:
    """Return the status of a check that applies."""
    return "pass" if ok else "fail"


@dataclass(frozen=True, repr=False)
class Audit:
    """All findings about a defense.

    Args:
        label: of the defense.
        about: fingerprint, data set, threat, budget, seed: all that the findings depend on.
        findings: of all checks.
    """

    label: str
    about: JsonView
    findings: tuple[Finding, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the failed checks."""
        return tuple(f.check for f in self.findings if f.status == "fail")

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """Names of the checks that were not measurable."""
        return tuple(f.check for f in self.findings if f.status == "not measurable")

    @property
    def status(self) -> Status:
        """Return "fail" if a check fails, else "not measurable" if a check is, else "pass"."""
        return "fail" if self.failed else "not measurable" if self.unmeasured else "pass"

    @property
    def setting(self) -> str:
        """Threat, data set, number of images and budget."""
        about, images = self.about, f"{self.about['images']} images"
        of = f", of {about['outdated']}" if about.get("outdated") else ""
        return f"{about['norm']} {about['eps']} on {about['dataset']} ({images}, {about['budget']} budget{of})"

    def __repr__(self) -> str:
        """Return the findings as text, a line for each check."""
        unmeasured = f"no check fails; not measurable: {', '.join(self.unmeasured)}"
        result = "FAILS the audit" if self.failed else unmeasured if self.unmeasured else "passes the audit"
        lines = [f"{self.label}, {self.setting}: {result}"]
        return "\n".join([*lines, *(f"  {f.status:<14}  {f.check}: {clean(f.evidence)}" for f in self.findings)])

    def as_dict(self) -> Json:
        """Return the audit for JSON."""
        head = {"label": self.label, **self.about, "passed": self.status == "pass", "failed": list(self.failed)}
        return head | {"findings": [f.as_dict() for f in self.findings]}

    @classmethod
    def from_dict(cls, content: JsonView) -> Audit:
        """Return the audit of `as_dict`, after JSON."""
        other = {"label", "passed", "failed", "findings"}
        about = {key: value for key, value in content.items() if key not in other}
        return cls(content["label"], about, tuple(Finding.from_dict(f) for f in content["findings"]))
