"""The table of all attacks, measured on a small model and written by `tests/tools/attack_table.py`.

It is read without the libraries, so it holds for the versions that it was made with; its tests run every attack again.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

FILE = Path(__file__).with_name("attacks.csv")
NORMS = ("Linf", "L2", "L1", "L0")
_OTHER_NORM = ("the threat is", "not L0")  # in reasons that only name another norm


@dataclass(frozen=True)
class CatalogueEntry:
    """A row of the table. A status is "runs", "runs, targeted only" or "cannot: reason".

    Args:
        name: as in a board.
        alias_of: the name of which it is an alias; "" if none.
        kind: "fixed eps" or "minimisation" (it has no eps and is judged at eps afterwards).
        Linf: status, untargeted.
        L2: likewise.
        L1: likewise.
        L0: likewise.
        targeted: status, in the first norm that runs.
        asks: "gradients" if it went back through the network, else "logits" or "nothing"; "" if it never ran.
        stochastic: status on a defense whose logits vary.
        needs: of images ("3 channels"), classes and parameters, separated by "; ".
        warnings: of weak defaults.
    """

    name: str
    alias_of: str
    kind: str
    Linf: str
    L2: str
    L1: str
    L0: str
    targeted: str
    asks: str
    stochastic: str
    needs: str
    warnings: str

    def norms(self) -> list[str]:
        """Return the norms in which it runs."""
        return [norm for norm in NORMS if getattr(self, norm).startswith("runs")]

    def reason(self) -> str:
        """Return why it runs in no norm, or fails in one that it should have; "" if neither."""
        failures = [getattr(self, norm) for norm in NORMS if not getattr(self, norm).startswith("runs")]
        reasons = [f.removeprefix("cannot: ") for f in failures if not any(other in f for other in _OTHER_NORM)]
        return "; ".join(dict.fromkeys(reasons))


def catalogue() -> list[CatalogueEntry]:
    """Return all entries, in the order of the suites."""
    with FILE.open(encoding="utf-8", newline="") as file:
        return [CatalogueEntry(**row) for row in csv.DictReader(file)]


def of_other_norms(norm: str) -> dict[str, str]:
    """Return the attacks that cannot run in a norm because they work in others, with the reason."""
    statuses = {entry.name: getattr(entry, norm) for entry in catalogue()}
    return {
        name: status.removeprefix("cannot: ")
        for name, status in statuses.items()
        if status.startswith("cannot: ") and any(other in status for other in _OTHER_NORM)
    }


def write(entries: Iterable[CatalogueEntry], path: Path) -> None:
    """Write the table as CSV."""
    names = [f.name for f in fields(CatalogueEntry)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([getattr(e, n) for n in names] for e in entries)


def remarks(entry: CatalogueEntry) -> str:
    """Return the remarks of an attack: alias, reasons for what does not run, warnings."""
    parts = [f"the same as {entry.alias_of}" if entry.alias_of else ""]
    if not entry.norms():
        return "; ".join(p for p in (*parts, f"cannot run: {entry.reason()}") if p)
    for status, limit in ((entry.stochastic, "not on varying answers"), (entry.targeted, "not targeted")):
        reason = status.removeprefix("cannot: ")
        if reason != status and "no targeted mode" not in reason:
            parts.append(f"{limit}: {reason}")
    targeted = any("targeted only" in getattr(entry, n) for n in NORMS)
    return "; ".join(p for p in (*parts, "" if targeted else entry.reason(), entry.warnings) if p)


def columns(entry: CatalogueEntry) -> tuple[str, ...]:
    """Return the cells of a row of the page, under `HEADER`."""
    marks = [{"runs": "yes", "runs, targeted only": "targeted"}.get(getattr(entry, n), "–") for n in NORMS]
    targeted, varying = ("yes" if s.startswith("runs") else "–" for s in (entry.targeted, entry.stochastic))
    return (entry.name, *marks, targeted, entry.asks or "–", varying, entry.kind, entry.needs, remarks(entry))


HEADER = ("attack", *NORMS, "targeted", "asks for", "varying", "kind", "needs", "remarks")


def markdown(entries: Sequence[CatalogueEntry], versions: str) -> str:
    """Return the page of the table, with the libraries' versions."""
    runs = sum(bool(e.norms()) for e in entries)
    rows = [HEADER, tuple("---" for _ in HEADER), *(columns(e) for e in entries)]
    table = "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows)
    return (
        "# All attacks by name\n\n"
        f"Made by `python tests/tools/attack_table.py`, which runs every attack on a small model of 3x8x8 images "
        f"through purebench's adapters, with {versions}: {runs} of {len(entries)} run. "
        "`tests/bench/attacks/test_attack_table.py` fails when "
        "it is out of date.\n\n"
        "Norms: the attack ran under this threat, untargeted. Varying: it ran on a defense whose answers vary. Asks "
        "for: gradients if it went back through the network. Minimisation attacks know no eps and are judged at eps "
        "afterwards. Needs: without it a run records the attack as unsupported, with the reason; measured on images of "
        "1 channel and of 12x8 pixels, and on 2 to 4 classes (the tiles of Square fit 8x8, 28x28, 32x32 and 224x224 "
        "pixels, but neither 12x8 nor 14x14). Remarks end with the warnings that every results table "
        "repeats.\n\n"
        f"{table}\n"
    )
