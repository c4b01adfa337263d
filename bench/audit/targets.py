"""Options and defenses of an audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.audit.reproduction.rebuild import rebuild_defense
from bench.board.defense_entry import Candidate
from bench.spec.threat import ThreatModel
from defenses.data.sources.base import split_name
from defenses.utils.errors import UserError, unknown

if TYPE_CHECKING:
    from bench.board.defense_entry import Roots
    from bench.store.parts import CellRecord
    from defenses.core.defense import Defense

_NORMS = ("Linf", "L2", "L1")


@dataclass(frozen=True)
class AuditOptions:
    """Data, threat and results folder of an audit.

    Args:
        dataset: name of the data set.
        split: of the data set.
        indices: name of an index list, of which the first images are taken.
        threat: norm and eps.
        seed: of attacks and verdicts.
        out: results folder.

    Raises:
        UserError: a norm that the audit's attacks do not have.
    """

    dataset: str
    split: str
    indices: str
    threat: ThreatModel
    seed: int
    out: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "split", split_name(self.split))
        if self.threat.norm not in _NORMS:
            norms = ", ".join(_NORMS)
            raise UserError(f"an audit attacks in {norms}, not in {self.threat.norm}; give --norm and --eps")


def stored_candidates(results: Path, roots: Roots) -> tuple[CellRecord, list[Candidate]]:
    """Return (the first line of the plan, the defenses) of a results folder.

    Args:
        results: the folder.
        roots: folders of weights and of data sets.

    Raises:
        UserError: no results. A defense that cannot be rebuilt, or that has changed, raises it when it is loaded.
    """
    from bench.store.reader import read_folder

    lines: list[CellRecord] = read_folder(results, lambda lines, _: lines)
    fingerprints = {line["defense"]: line["identity"]["defense"] for line in lines if line.get("identity")}
    if not fingerprints:
        raise UserError(f"{results} has no finished cells; run its board first, or audit the board")
    dataset = lines[0]["dataset"]
    return lines[0], [_candidate(label, fingerprint, dataset, roots) for label, fingerprint in fingerprints.items()]


def _candidate(label: str, fingerprint: Mapping[str, object], dataset: str, roots: Roots) -> Candidate:
    """Return the defense of a fingerprint, which is rebuilt when it is loaded."""

    def load() -> Defense:
        rebuilt = rebuild_defense(fingerprint, dataset, **roots)
        if rebuilt.defense is None:
            raise UserError(f"{label} cannot be made again: {rebuilt.problem}")
        if rebuilt.changes:
            raise UserError(f"{label} is not what was run ({rebuilt.changes[0]}); run its board again")
        return rebuilt.defense

    return Candidate(label, fingerprint, load)


def select(candidates: list[Candidate], labels: list[str]) -> list[Candidate]:
    """Return the defenses with these labels; all if there is no label.

    Raises:
        UserError: unknown label.
    """
    by_label = {c.label: c for c in candidates}
    for label in labels:
        if label not in by_label:
            raise unknown("defense", label, by_label)
    return [by_label[label] for label in labels] or candidates
