"""Contents of a results folder that a report is made from; no model and no data set is loaded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.analysis.caveats import split_warnings
from bench.analysis.records import CLEAN, NULL
from bench.site.collect import collect
from bench.site.model import SiteBoard, SiteRow, Source, Track
from bench.site.records import records
from bench.spec.cell import KNOWN, label_of
from bench.store.audits import VERSION, read_audits
from bench.store.kinds import NO_RESULTS, kind_of
from bench.store.manifest import read_manifest, read_runs
from bench.store.parts import DRAWS, CellRecord, damage, part_folders
from bench.store.reader import read_folder
from defenses.utils.errors import UserError, unknown
from defenses.utils.text import counted

Values = Mapping[str, Any]
_NO_ATTACK = {f"{name}{known}" for name in (CLEAN, NULL) for known in ("", KNOWN)}


@dataclass(frozen=True, eq=False)
class Subject:
    """A results folder, read as a report needs it.

    Args:
        folder: the folder.
        source: its runs and checksums.
        boards: its boards, one for each threat, with the rows that are reported.
        count: number of all rows.
        tracks: its tables, if it is no board.
        lines: its cells, of the reported defenses.
        runs: of its manifest.
        manifest: of the folder.
        audits: rows of `bench.load_audits`, of the folder and those named beside it.
        outdated: label and reason of the audits that no longer count.
        earlier: labels of the defenses with an audit that another version of `purebench audit` made.
        leaders: rows of `bench.leaderboard`, a data frame; None without a board.
    """

    folder: Path
    source: Source
    boards: tuple[SiteBoard, ...]
    count: int
    tracks: tuple[Track, ...]
    lines: tuple[CellRecord, ...]
    runs: tuple[Mapping[str, Any], ...]
    manifest: Mapping[str, Any]
    audits: Sequence[Values]
    outdated: tuple[tuple[str, str], ...]
    earlier: tuple[str, ...]
    leaders: Any

    @property
    def lost(self) -> str:
        """Text on finished cells of runs that the manifest does not have; "" without any."""
        known = {run.get("id") for run in self.runs}
        finished = [line for line in self.lines if line.get("status") == "ok"]
        count = sum(line.get("run") not in known for line in finished)
        return f"{count} of {counted(len(finished), 'cell')} are of runs that are not recorded" if count else ""

    @property
    def rows(self) -> list[SiteRow]:
        """Reported rows of all threats."""
        return [row for board in self.boards for row in board.rows]

    @property
    def attacked(self) -> list[SiteRow]:
        """Reported rows that an attack was planned on."""
        return [row for row in self.rows if any(attacks_of(row))]

    @cached_property
    def audited(self) -> list[tuple[str, Sequence[Values]]]:
        """Label and checks of each reported defense; of a folder without a board those of its audits."""
        if self.boards:
            return [(row.label, row.checks) for row in self.attacked]
        found: dict[tuple[str, str], list[Values]] = {}
        for check in self.audits:
            found.setdefault((str(check["defense"]), str(check["fingerprint"])), []).append(check)
        return [(label, checks) for (label, _), checks in found.items()]

    def has_scores(self, label: str) -> bool:
        """Return True if the draws of a defense have the scores of a detector."""
        import pyarrow.parquet as pq

        names = {str(line["part"]) for line in self.lines if line["defense"] == label and line.get("part")}
        files = [self.folder / "parts" / name / DRAWS for name in sorted(names)]
        return any("score" in pq.read_schema(file).names for file in files if file.is_file())

    @property
    def title(self) -> str:
        """Title of the board, or of its tables."""
        titles = [board.title for board in self.boards] or [track.title for track in self.tracks]
        return str(self.manifest.get("title") or (titles[0] if titles else f"Audits of {self.source.name}"))

    @property
    def partial(self) -> bool:
        """True if some rows are left out."""
        return len(self.rows) < self.count


def subject_of(folder: Path, defenses: Collection[str] = (), audits: Iterable[Path] = ()) -> Subject:
    """Return the contents of a results folder.

    Args:
        folder: of results of any kind.
        defenses: labels of the rows that are reported; empty: all.
        audits: further results folders, whose audits count.

    Raises:
        UserError: no results there, a damaged file, or no such defense.
    """
    if kind_of(folder) is None:
        raise UserError(NO_RESULTS.format(folder))
    for part in part_folders(folder / "parts"):
        if problem := damage(part):
            raise UserError(f"{part}: {problem}; run the board again, which redoes its cells")
    others = tuple(audits)
    site = collect([folder], "", gallery=0, compared=False, audits=others)
    known = [row.label for board in site.boards for row in board.rows]
    for label in defenses:
        if label not in known:
            raise unknown("defense", label, known)
    boards = [_of_defenses(board, defenses) if defenses else board for board in site.boards]
    kept = tuple(board for board in boards if board.rows)
    lines: list[CellRecord] = read_folder(folder, lambda found, _: found) if site.boards else []
    checks = records(site.frames["audits"]) if "audits" in site.frames else []
    old = [(str(a.get("label")), str(a["outdated"])) for a in read_audits(folder) if a.get("outdated")]
    rows = [(row.label, check) for board in kept for row in board.rows for check in row.checks]
    rows = rows or [(str(check["defense"]), check) for check in checks]
    earlier = dict.fromkeys(label for label, check in rows if check["audit_version"] != VERSION)
    return Subject(
        folder,
        site.sources[0],
        kept,
        len(known),
        site.tracks,
        tuple(line for line in lines if not defenses or line["defense"] in defenses),
        tuple(read_runs(folder)),
        read_manifest(folder),
        [check for check in checks if not defenses or check["defense"] in defenses],
        tuple((label, reason) for label, reason in old if not defenses or label in defenses),
        tuple(label for label in earlier if not defenses or label in defenses),
        site.frames.get("leaderboard"),
    )


def _of_defenses(board: SiteBoard, labels: Collection[str]) -> SiteBoard:
    """Return a board with the rows of some defenses."""
    protocols = board.protocols
    if protocols is not None:
        protocols = protocols[protocols["defense"].map(label_of).isin(list(labels))]
    return replace(board, rows=tuple(row for row in board.rows if row.label in labels), protocols=protocols)


def attacks_of(row: SiteRow) -> Iterator[Values]:
    """Yield the rows of the summary of the attacks on a row, without clean images and uniform noise."""
    yield from (found for found in row.attacks if found["attack"] not in _NO_ATTACK)


def finished(row: SiteRow, holds: Callable[[Values], bool] = lambda _: True) -> list[Values]:
    """Return the attacks on a row that have a number, and for which a condition holds."""
    return [found for found in attacks_of(row) if found["robust_mean"] is not None and holds(found)]


def warnings_of(found: Values) -> list[str]:
    """Return the warnings of an attack on a row."""
    return split_warnings(str(found.get("warnings") or ""))[0]
