"""The result of a verification, as JSON and as text."""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.analysis.verdict_agreement import SIZE, TIE, Agreement


@dataclass
class VerificationRow:
    """The verified cells of one attack on one view of one defense at one threat.

    Args:
        name: defense, attack, view and threat.
        agree: number of cells with the same verdict in every draw; margins may differ.
        ties: number of cells that differ only in ties, see `Agreement.unexplained`.
        differ: number of all others.
        total: sum of the cells' agreements.
    """

    name: tuple[str, str, str, str]
    agree: int = 0
    ties: int = 0
    differ: int = 0
    total: Agreement = field(default_factory=Agreement)

    def add(self, cell: Agreement) -> None:
        """Count a cell."""
        self.total += cell
        setattr(self, cell.kind, getattr(self, cell.kind) + 1)


@dataclass
class Verification:
    """The result of a verification.

    Args:
        rows: in the order of the plan.
        findings: changes, and causes of cells that cannot be judged, a line each.
        environment: libraries and devices that have changed, a line each; that alone is no difference.
        unjudged: number of cells with stored images that cannot be judged.
        failed: number of cells on record without images: errors, and unsupported ones.
        missing: number of planned cells that have not been run.
        sample: largest number of judged images of a cell; None: all.
        changed: labels of the defenses that are not the ones that were judged.
    """

    rows: list[VerificationRow] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    environment: list[str] = field(default_factory=list)
    unjudged: int = 0
    failed: int = 0
    missing: int = 0
    sample: int | None = None
    changed: list[str] = field(default_factory=list)

    def count(self, kind: str) -> int:
        """Return the number of cells of a kind: "agree", "ties" or "differ"."""
        return sum(getattr(row, kind) for row in self.rows)

    @property
    def judged(self) -> int:
        """Number of cells that were judged again."""
        return sum(map(self.count, ("agree", "ties", "differ")))

    @property
    def agrees(self) -> bool:
        """True if cells were judged, and all agree but for ties."""
        return self.judged > 0 and not self.count("differ") and not self.unjudged and not self.findings


def as_dict(verification: Verification) -> dict[str, object]:
    """Return a verification for JSON."""
    names = ("defense", "attack", "view", "threat")
    keys = ("unjudged", "failed", "missing", "sample", "findings", "environment")
    rows = [
        {
            **dict(zip(names, row.name, strict=True)),
            "cells": row.agree + row.ties + row.differ,
            "agree": row.agree,
            "ties": row.ties,
            "differ": row.differ,
            "images": row.total.images,
            "images_that_differ": row.total.differing,
            "images_flagged": row.total.flagged,
            "accuracy_change": row.total.accuracy / max(row.total.images, 1),
            "largest_margin_change": row.total.margin,
            "largest_norm_change": row.total.size,
        }
        for row in verification.rows
    ]
    return {
        "agrees": verification.agrees,
        "cells": verification.judged,
        **{kind: verification.count(kind) for kind in ("agree", "ties", "differ")},
        **{key: getattr(verification, key) for key in keys},
        "rows": rows,
    }


def as_text(verification: Verification) -> str:
    """Return a verification as text: a line for each row and finding, and the sum."""
    lines = [_row(row) for row in verification.rows]
    lines += [f"found: {text}" for text in verification.findings]
    lines += [f"environment: {text}" for text in verification.environment]
    if verification.sample is not None:
        lines.append(f"a sample: at most {verification.sample} images of each cell")
    rest = [(verification.failed, "on record without images"), (verification.missing, "not run")]
    lines += [f"{n} cells {state}" for n, state in rest if n]
    return "\n".join([*lines, _sum(verification)])


def _row(row: VerificationRow) -> str:
    """Return the line of a row."""
    total = row.total
    parts = [f"{total.images} images"]
    if total.differing:
        parts.append(f"{total.differing} differ")
        parts.append(f"accuracy {100 * total.accuracy / max(total.images, 1):+.3f} points")
    if total.flagged:
        parts.append(f"{total.flagged} in box, ball or status")
    parts.append(f"largest change of a margin {total.margin:.1e}" if total.margin else "margins equal")
    if total.size > SIZE:
        parts.append(f"of a norm {total.size:.1e}")
    return f"{' | '.join(row.name)}: {', '.join(parts)}"


def _sum(verification: Verification) -> str:
    """Return the last line, the number of cells of each kind."""
    text = (
        f"{verification.count('agree')} of {verification.judged + verification.unjudged} cells agree in every draw, "
        f"{verification.count('ties')} differ only where the top-two margin is under {TIE:.0e} (or a score that near "
        f"to the detector's threshold), {verification.count('differ')} differ"
    )
    if verification.unjudged:
        text += f", {verification.unjudged} could not be judged"
    if verification.changed:
        text += (
            f"; {', '.join(verification.changed)} changed, so this tells nothing of the numbers on record: verify with "
            "the weights or the code of then (--weights-root, --code), or run the board again for those of today"
        )
    return text
