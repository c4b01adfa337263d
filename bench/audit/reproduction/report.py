"""What a verification has found, and how it is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bench.audit.reproduction.agreement import TIE, Agreement

_SIZE = 1e-6  # norms are computed in float64 and stored as float32


@dataclass
class VerificationRow:
    """The cells of one attack on one view of one defense at one threat, judged again.

    Args:
        name: defense, attack, view and threat.
        agree: cells with the same verdict in every draw; margins may move, and it is told by how much.
        ties: cells that differ in draws alone that `bench.audit.reproduction.agreement` takes for ties.
        differ: all others.
        total: their agreement, summed up.
    """

    name: tuple[str, str, str, str]
    agree: int = 0
    ties: int = 0
    differ: int = 0
    total: Agreement = field(default_factory=Agreement)

    def add(self, found: Agreement) -> None:
        """Count a cell."""
        self.total += found
        if found.flagged or found.unexplained or found.size > _SIZE:
            self.differ += 1
        elif found.differing:
            self.ties += 1
        else:
            self.agree += 1


@dataclass
class Verification:
    """What was found.

    Args:
        rows: in the order of the plan.
        findings: what is not as it was, or could not be judged, a line each.
        environment: libraries of another version than then, a line each; that alone is no difference.
        unjudged: cells with stored images that could not be judged.
        failed: cells on record without images: errors, and what a library cannot run.
        missing: planned cells that have not been run.
        sample: at most so many images of a cell were judged; None: all.
    """

    rows: list[VerificationRow] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    environment: list[str] = field(default_factory=list)
    unjudged: int = 0
    failed: int = 0
    missing: int = 0
    sample: int | None = None

    def count(self, kind: str) -> int:
        """Cells of a kind: "agree", "ties" or "differ"."""
        return sum(getattr(row, kind) for row in self.rows)

    @property
    def judged(self) -> int:
        """Cells that were judged again."""
        return sum(map(self.count, ("agree", "ties", "differ")))

    @property
    def agrees(self) -> bool:
        """Whether something was judged, and everything is as it was, ties apart."""
        return self.judged > 0 and not self.count("differ") and not self.unjudged and not self.findings


def as_dict(found: Verification) -> dict[str, Any]:
    """For JSON."""
    names = ("defense", "attack", "view", "threat")
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
        for row in found.rows
    ]
    return {
        "agrees": found.agrees,
        "cells": found.judged,
        **{kind: found.count(kind) for kind in ("agree", "ties", "differ")},
        **{key: getattr(found, key) for key in ("unjudged", "failed", "missing", "sample", "findings", "environment")},
        "rows": rows,
    }


def as_text(found: Verification) -> str:
    """For people: a line per row, what else was found, and the sum."""
    lines = [_row(row) for row in found.rows]
    lines += [f"found: {text}" for text in found.findings]
    lines += [f"environment: {text}" for text in found.environment]
    if found.sample is not None:
        lines.append(f"a sample: at most {found.sample} images of each cell")
    rest = [(found.failed, "on record without images"), (found.missing, "not run")]
    lines += [f"{n} cells {what}" for n, what in rest if n]
    return "\n".join([*lines, _sum(found)])


def _row(row: VerificationRow) -> str:
    total = row.total
    parts = [f"{total.images} images"]
    if total.differing:
        parts.append(f"{total.differing} differ")
        parts.append(f"accuracy {100 * total.accuracy / max(total.images, 1):+.3f} points")
    if total.flagged:
        parts.append(f"{total.flagged} in box, ball or status")
    parts.append(f"largest change of a margin {total.margin:.1e}" if total.margin else "margins equal")
    if total.size > _SIZE:
        parts.append(f"of a norm {total.size:.1e}")
    return f"{' | '.join(row.name)}: {', '.join(parts)}"


def _sum(found: Verification) -> str:
    text = (
        f"{found.count('agree')} of {found.judged + found.unjudged} cells agree in every draw, "
        f"{found.count('ties')} differ only where the top-two margin is under {TIE:.0e} (or a score that near to the "
        f"detector's threshold), {found.count('differ')} differ"
    )
    return f"{text}, {found.unjudged} could not be judged" if found.unjudged else text
