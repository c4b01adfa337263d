"""The section on ACM's words for artifacts: which of them a folder supports, and why; it awards none."""

from __future__ import annotations

from bench.report.document.model import Grid, Section, Text
from bench.report.table import Table
from bench.reproducibility.answers.runs import outputs, typed
from bench.reproducibility.subject import Subject

_KINDS = {"supports": "good", "in part": "warn", "does not support": "bad"}


def availability(subject: Subject) -> Section:
    """Return what the folder supports of available, functional and reproduced."""
    problems = _problems(subject)
    functional = "in part" if problems else "supports"
    why = "; ".join(problems) or "commands, commits, versions, all cells and the stored images are here"
    rows = (
        ("available", "does not support", "needs a public archive with a lasting identifier, which a folder does not "
         "show; its metadata for one: purebench report --crate"),
        ("functional", functional, why),
        ("reproduced", "does not support", "needs somebody else, who repeats the commands of this report and publishes "
         "the outcome; the folder holds no such record"),
    )  # fmt: skip
    text = (
        "Words of ACM's badges for artifacts (version 1.1). Only reviewers award them; this says what there is to show."
    )
    table = Table("What this folder supports", ("word", "answer", "why"), rows, left=3)
    return Section("availability", "Available, functional, reproduced", (Text(text), Grid(table, kinds=_KINDS)))


def _problems(subject: Subject) -> list[str]:
    """Return what is missing for an artifact that works."""
    runs = subject.source.runs
    found = []
    if not runs:
        found.append("no run is recorded")
    elif not all(run.commit and not run.dirty for run in runs):
        found.append("a run has no commit, or changes beside it")
    if runs and subject.lost:
        found.append(subject.lost)
    if runs and not any(typed(run.command) for run in runs):
        found.append("no command is recorded")
    if runs and not all(run.versions for run in runs):
        found.append("versions of packages are missing")
    states = [str(line.get("status")) for line in subject.lines]
    if lacking := sum(state not in ("ok", "unsupported") for state in states):
        found.append(f"{lacking} of {len(states)} cells have no result")
    if subject.boards and outputs(subject).state != "yes":
        found.append("adversarial images are not stored for every part")
    return found
