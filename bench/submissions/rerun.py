"""Judge stored images of a submission again, which runs its code."""

from __future__ import annotations

from pathlib import Path

from bench.audit.reproduction.report import as_text
from bench.audit.reproduction.verify import VerifyOptions, verify
from bench.submissions.code import plugins
from bench.submissions.submission import Finding, Submission
from defenses.utils.text import counted


def announced(row: Submission, sample: int) -> str:
    """Return what a repetition is about to run, one line."""
    code = ", ".join(plugins(row.lines)) or "no code of the zip, as the defense is one of purebench"
    return f"judging {counted(sample, 'image')} of each cell again; this runs {code}"


def rerun_problems(row: Submission, sample: int, data_root: Path | None = None) -> list[Finding]:
    """Return why the stored verdicts are not those of today, as `purebench verify --sample` says it.

    Args:
        row: the submission.
        sample: largest number of images of each cell.
        data_root: folder of data sets.
    """
    verification = verify(row.results, VerifyOptions(sample=sample, code=row.code, data_root=data_root))
    return [] if verification.agrees else [Finding("rerun", line) for line in as_text(verification).splitlines()]
