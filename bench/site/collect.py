"""Read results folders into what a site shows; no model and no data set is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from bench.analysis.caveats import fingerprints_of
from bench.analysis.claim_files import Claim, read_claims
from bench.analysis.claims import claims_on, with_weights
from bench.analysis.leaderboard import leaderboard_of
from bench.analysis.loaders import load_audits, load_certificates
from bench.analysis.pairs import worst_sides
from bench.analysis.records import CLEANS
from bench.analysis.reproduction import protocols_of
from bench.analysis.results import Results, read_results
from bench.analysis.rows import SETTING
from bench.analysis.sides import Side
from bench.analysis.summary import WORST, summary
from bench.figures.frames import Frames, Threat
from bench.figures.pictures import of_board, of_rows
from bench.report import footnotes
from bench.report.attack_warnings import with_warnings
from bench.report.comparison_table import column_names
from bench.report.number_notes import of_numbers
from bench.site.about import about_of, passes_of
from bench.site.images import Images, images_of
from bench.site.model import Site, SiteBoard, SiteRow, Source, slugs
from bench.site.pairs import pairs_of
from bench.site.sources import shown, sources_of
from bench.site.tracks import track_of
from bench.spec.aggregation import aggregation_of
from bench.store.audits import current_audits
from bench.store.manifest import Manifest, read_manifest, resumed_anyway
from defenses.utils.errors import UserError
from defenses.utils.names import portable

_EVALUATED = ("a board", "audits")  # kinds of folders that may hold audits
_STATES = {"fail": 0, "not measurable": 1, "pass": 2}  # order of checks; others after them
Records = list[dict[str, Any]]


@dataclass(frozen=True, eq=False)
class _Known:
    """Claims and audits, which count in all folders.

    Args:
        claims: published claims.
        audits: parsed audits.
        checks: rows of `bench.load_audits` by fingerprint.
        compared: see `collect`.
    """

    claims: Sequence[Claim]
    audits: Sequence[Mapping[str, Any]]
    checks: Mapping[str, Records]
    compared: bool


def collect(
    results: Iterable[Path],
    title: str,
    claims: Iterable[Claim] | None = None,
    *,
    gallery: int,
    compared: bool = True,
    audits: Iterable[Path] = (),
) -> Site:
    """Return the contents of a site.

    Args:
        results: results folders of any kind. Audits count in all boards, for defenses of the same fingerprint.
        title: of the site.
        claims: published claims; None: those that come with purebench.
        gallery: most images of an attack that are shown; 0: none.
        compared: False leaves out the pairs of rows and the pictures of single rows, which take half of the time.
        audits: further folders, of which audits alone count.

    Raises:
        UserError: no results, a damaged file, or two folders of one title.
    """
    found = sources_of(results)
    evaluated = [*(folder for folder, source in found if source.kind in _EVALUATED), *audits]
    checks = _shown(load_audits(*evaluated)) if evaluated else None
    by_defense = _by("fingerprint", [] if checks is None else records(checks))
    current = [audit for folder in evaluated for audit in current_audits(folder)]
    known = _Known(read_claims() if claims is None else list(claims), current, by_defense, compared)
    read = [_read(folder, source, known, gallery) for folder, source in found if source.kind == "a board"]
    boards = tuple(_named([board for of_folder, _, _ in read for board in of_folder]))
    frames = {name: [frame for _, *pair in read for frame in pair[at : at + 1]] for at, name in enumerate(_FRAMES)}
    joined = {name: pd.concat(parts, ignore_index=True) for name, parts in frames.items() if parts}
    joined |= {} if checks is None else {"audits": checks}
    tracks = [track_of(folder, source) for folder, source in found if source.kind not in _EVALUATED]
    return Site(title, boards, tuple(tracks), tuple(s for _, s in found), joined, _certificates(evaluated))


def _certificates(folders: Iterable[Path]) -> dict[str, Records]:
    """Return the measurements of each certificate by fingerprint, of the first folder that has them."""
    found: dict[str, Records] = {}
    for folder in folders:
        found = _by("fingerprint", records(load_certificates(folder))) | found
    return found


_FRAMES = ("leaderboard", "claims")
_OF_BOARD = {"ranks", "clean-robust", "cost", "matrix"}


def records(frame: pd.DataFrame) -> Records:
    """Return the rows of a frame; what is missing is None."""
    columns = [
        [None if value is pd.NA or value != value else value for value in frame[name].tolist()] for name in frame
    ]
    names = [str(name) for name in frame]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _by(column: str, rows: Records) -> dict[str, Records]:
    found: dict[str, Records] = {}
    for row in rows:
        found.setdefault(str(row[column]), []).append(row)
    return found


def _shown(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame with the folders in its column "results" as the site names them."""
    return frame.assign(results=[shown(Path(folder)) for folder in frame["results"]])


def _named(boards: Sequence[SiteBoard]) -> Iterator[SiteBoard]:
    """Yield boards with names of folders; of one title there is one folder.

    Raises:
        UserError: two results folders have one title.
    """
    by_title: dict[str, dict[str, None]] = {}
    for board in boards:
        by_title.setdefault(board.title, {})[board.source.name] = None
    for title, folders in by_title.items():
        if len(folders) > 1:
            raise UserError(f'{" and ".join(folders)} both have the title "{title}"; name one of them')
    several = Counter(board.name for board in boards)
    names = [f"{b.name} {b.threat}" if several[b.name] > 1 else b.name for b in boards]
    for board, slug, name in zip(boards, slugs(names), names, strict=True):
        title = f"{board.title}: {board.threat}" if name != board.name else board.title
        yield SiteBoard(**{**vars(board), "slug": slug, "title": title})


@dataclass(frozen=True, eq=False)
class _OfFolder:
    """Contents of a results folder, of which its boards are made.

    Args:
        source: the folder.
        results: its cells and records.
        manifest: its manifest.
        certificates: rows of `bench.load_certificates`.
        known: what is known of all folders.
        images: its images and cells.
        sides: worst cases by label, by setting.
        claims: rows of `bench.claims_table`, if it has one setting; else None.
        frames: what its pictures are drawn from.
    """

    source: Source
    results: Results
    manifest: Manifest
    certificates: Records
    known: _Known
    images: Images
    sides: Mapping[tuple[str, ...], Mapping[str, Side]]
    claims: pd.DataFrame | None
    frames: Frames


def _read(
    folder: Path, source: Source, known: _Known, gallery: int
) -> tuple[list[SiteBoard], pd.DataFrame, pd.DataFrame]:
    """Return the boards of a results folder, one for each threat, its leaderboard and its claims."""
    results, manifest = read_results(folder), read_manifest(folder)
    frame = with_weights(summary(results), manifest)
    leaders = leaderboard_of(folder, results, known.audits, known.claims)
    claims = claims_on(source.name, frame, known.claims)
    certificates = records(load_certificates(folder))
    images = images_of(folder, results, gallery)
    known_sides = worst_sides(results) if known.compared else {}
    sides = {tuple(map(str, setting)): of_setting for setting, of_setting in known_sides.items()}
    frames = Frames(folder, results=results, leaders=leaders, attacked=frame, claimed=claims)
    alone = claims if len(leaders[list(SETTING)].drop_duplicates()) == 1 else None
    of_folder = _OfFolder(source, results, manifest, certificates, known, images, sides, alone, frames)
    frame = with_warnings(frame, results.cells, {})
    boards = []
    for setting, rows in leaders.groupby(list(SETTING), sort=False):
        here = {name: str(value) for name, value in zip(SETTING, setting, strict=True)}
        boards.append(_board(here, rows, _at(frame, here), _at(results.cells, here), of_folder))
    return boards, leaders.assign(results=source.name, dataset=leaders["dataset"].map(portable)), claims


def _at(frame: pd.DataFrame, setting: Mapping[str, str]) -> pd.DataFrame:
    """Return the rows of a setting, of which the frame has columns."""
    shared = [name for name in SETTING if name in frame]
    return frame[(frame[shared] == pd.Series(setting)[shared]).all(axis=1)]


def _board(
    setting: Mapping[str, str], leaders: pd.DataFrame, frame: pd.DataFrame, cells: pd.DataFrame, of_folder: _OfFolder
) -> SiteBoard:
    """Return a board without the name of its folder."""
    manifest, results = of_folder.manifest, of_folder.results
    name = str(manifest.get("board") or of_folder.source.name.rpartition("/")[2])
    random = cells[cells["stochastic"].astype(bool) & ~cells["seed_known"].astype(bool)]
    pairs = random[["draws", "selection"]].drop_duplicates().itertuples(index=False)
    draws = [f"{held} held-out and {chosen} selection draws" for held, chosen in pairs]
    shared = (
        *footnotes.of_preset(manifest),
        *footnotes.of_data(manifest),
        *footnotes.of_sequential(aggregation_of(manifest), results.records),
        *footnotes.of_compute(frame),
        *of_numbers(frame, cells, results.records),
    )
    summaries = _by("defense", records(frame))
    alone, known = of_folder.claims, of_folder.known.claims
    claims = _by("defense", records(claims_on(of_folder.source.name, frame, known) if alone is None else alone))
    lines = records(leaders)
    by_label = {str(label): of_label for label, of_label in cells.groupby("defense", sort=False)}
    rows = []
    for slug, line in zip(slugs(str(line["defense"]) for line in lines), lines, strict=True):
        row = _row(slug, line, summaries[label := str(line["defense"])], by_label[label], of_folder, setting)
        rows.append(replace(row, claims=claims.get(label, [])))
    return SiteBoard(
        slug="",
        name=name,
        title=str(manifest.get("title") or name),
        source=of_folder.source,
        setting={**setting, "dataset": portable(setting["dataset"])},
        images=int(frame["planned"].max()),
        draws="; ".join(draws),
        budget="+".join(sorted({part for text in frame["budget"] for part in str(text).split("+")} - {""})),
        rows=tuple(rows),
        columns=column_names(frame),
        notes=shared,
        pictures=tuple(of_board(Threat(of_folder.frames, setting, several=False), _OF_BOARD)),
        pairs=tuple(pairs_of([row.label for row in rows], of_folder.sides.get(tuple(setting.values()), {}))),
        protocols=_at(protocols_of(results, manifest, known), setting) if manifest.get("presets") else None,
    )


def _row(
    slug: str,
    line: dict[str, Any],
    attacks: Records,
    cells: pd.DataFrame,
    of_folder: _OfFolder,
    setting: Mapping[str, str],
) -> SiteRow:
    """Return a row of a board, without its claims.

    Args:
        slug: name of its page.
        line: its row of the leaderboard.
        attacks: its rows of the summary.
        cells: its cells.
        of_folder: the results folder.
        setting: of the board.
    """
    label, keys = str(line["defense"]), str(line["fingerprint"]).split("; ")
    worst = next((row for row in attacks if row["attack"] == WORST), {})
    others = [row for row in attacks if row["attack"] != WORST]
    checks = [check for key in keys for check in of_folder.known.checks.get(key, ())]
    resumed = {name: text for name, text in resumed_anyway(of_folder.manifest).items() if name == label}
    ran = records(cells.reindex(columns=["defense", "status", "run"]).drop_duplicates())
    evidence, shown, recipes = of_folder.images.of_row((*setting.values(), label))
    threat = Threat(of_folder.frames, setting, several=False)
    return SiteRow(
        slug=slug,
        label=label,
        values={**worst, **line, "dataset": portable(str(line["dataset"]))},
        attacks=sorted(others, key=_strength),
        passes=passes_of(cells),
        about=about_of(list(fingerprints_of(of_folder.manifest, label).values())),
        claims=(),
        checks=sorted(checks, key=lambda check: _STATES.get(str(check["status"]), len(_STATES))),
        certificate=[c for c in of_folder.certificates if c["fingerprint"] in keys],
        notes=(*footnotes.of_resumed(resumed), *footnotes.mixed(ran, of_folder.manifest)),
        evidence=evidence,
        galleries=shown,
        recipes=recipes,
        pictures=tuple(of_rows(threat, label)) if of_folder.known.compared else (),
    )


def _strength(row: Mapping[str, Any]) -> tuple[bool, bool, float]:
    """Return what orders attacks: the strongest first, those without a number after them, unattacked images last."""
    share = row["robust_mean"]
    return row["attack"] in CLEANS, share is None, share or 0.0
