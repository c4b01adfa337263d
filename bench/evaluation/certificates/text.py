"""Print a stored certificate as lines of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.evaluation.certificates.certificate import State, rounded, state_of

_STATES = {"passed": "passed", "failed": "FAILED", "not measurable": "not measurable"}
_MARKS = {"passed": "ok  ", "failed": "FAIL", "not measurable": "?   "}


class GradientCertificate(dict[str, Any]):
    """A stored certificate: its keys are those of certificates.json; printed, it is what `purebench certify` prints.

    Args:
        title: of the defense.
        content: the stored certificate.
    """

    def __init__(self, title: str, content: Mapping[str, object]):
        super().__init__(content)
        self.title = title

    @property
    def state(self) -> State:
        """Return "passed", "failed" or "not measurable"."""
        return state_of(self)

    def __repr__(self) -> str:
        """Return a line for the defense, and one for each measurement."""
        steps = f", {self['steps']} steps" if self.get("steps") is not None else ""
        on = f" on {self['images']} images{steps} in float64" if "images" in self else ""
        text = self.get("note") or self.get("error")
        lines = [f"{self.title}: {_STATES[self.state]}{on}{f': {text}' if text else ''}"]
        for check in self.get("checks", ()):
            sign = ">=" if check["least"] else "<="
            note = f" ({check['note']})" if check["note"] else ""
            value, mark = rounded(check["value"], check["limit"]), _MARKS[state_of(check)]
            lines.append(f"  {mark} {check['name']}: {value} {sign} {check['limit']:g}{note}")
        return "\n".join(lines)
