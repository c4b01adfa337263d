"""Boards of a results folder, with their rows, as a site shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from bench.analysis.caveats import fingerprints_of
from bench.analysis.claim_files import Claim
from bench.analysis.claims import claims_on, with_facts
from bench.analysis.leaderboard import leaderboard_of
from bench.analysis.loaders import load_certificates
from bench.analysis.pairs import worst_sides
from bench.analysis.passes import passes_of
from bench.analysis.records import CLEANS
from bench.analysis.reproduction import protocols_of
from bench.analysis.results import Results, read_results
from bench.analysis.rows import SETTING
from bench.analysis.sides import Side
from bench.analysis.summary import WORST, ranked, summary
from bench.figures.frames import Frames, Threat
from bench.figures.picture import Picture
from bench.figures.pictures import of_board, of_rows
from bench.plots.attacks import submission_curves
from bench.report import footnotes
from bench.report.attack_warnings import with_warnings
from bench.report.comparison_table import column_names
from bench.report.number_notes import of_numbers
from bench.site.about import about_of
from bench.site.audit_curves import Curves, convergence_of, radius_of
from bench.site.images import Images, images_of
from bench.site.model import SiteBoard, SiteRow, Source, StoredFile, slugs
from bench.site.pairs import pairs_of
from bench.site.records import Records, by, records
from bench.site.row_files import part_files
from bench.site.training import Training
from bench.spec.aggregation import aggregation_of
from bench.spec.view_words import view_words
from bench.store.manifest import Manifest, read_manifest, resumed_anyway
from defenses.utils.names import portable

_OF_BOARD = {"ranks", "clean-robust", "cost", "matrix"}
_STATES = {"fail": 0, "not measurable": 1, "pass": 2}  # order of checks; others after them


@dataclass(frozen=True, eq=False)
class Known:
    """Claims and audits, which count in all folders.

    Args:
        claims: published claims.
        audits: parsed audits.
        checks: rows of `bench.load_audits` by fingerprint.
        audited: the same as a data frame; None without audits.
        curves: of each audit.
        trained: see `bench.site.training.trainings`.
        compared: see `bench.site.collect.collect`.
    """

    claims: Sequence[Claim]
    audits: Sequence[Mapping[str, Any]]
    checks: Mapping[str, Records]
    audited: pd.DataFrame | None
    curves: Curves
    trained: Mapping[str, Training]
    compared: bool


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
        files: of its parts, by the name of the part.
    """

    source: Source
    results: Results
    manifest: Manifest
    certificates: Records
    known: Known
    images: Images
    sides: Mapping[tuple[str, ...], Mapping[str, Side]]
    claims: pd.DataFrame | None
    frames: Frames
    files: Mapping[str, tuple[StoredFile, ...]]


def boards_of(
    folder: Path, source: Source, known: Known, gallery: int
) -> tuple[list[SiteBoard], pd.DataFrame, pd.DataFrame]:
    """Return the boards of a results folder, one for each threat, its leaderboard and its claims."""
    results, manifest = read_results(folder), read_manifest(folder)
    frame = with_facts(summary(results), results, manifest)
    leaders = leaderboard_of(folder, results, known.audits, known.claims)
    claims = claims_on(source.name, frame, known.claims)
    certificates = records(load_certificates(folder))
    images = images_of(folder, results, gallery)
    known_sides = worst_sides(results) if known.compared else {}
    sides = {tuple(map(str, setting)): of_setting for setting, of_setting in known_sides.items()}
    frames = Frames(folder, results=results, leaders=leaders, attacked=frame, claimed=claims, parts=images.parts)
    alone = claims if len(leaders[list(SETTING)].drop_duplicates()) == 1 else None
    of_folder = _OfFolder(
        source, results, manifest, certificates, known, images, sides, alone, frames, part_files(folder)
    )
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
    shared = (
        *footnotes.of_preset(manifest),
        *footnotes.of_data(manifest),
        *footnotes.of_sequential(aggregation_of(manifest), results.records),
        *footnotes.of_compute(frame),
        *of_numbers(frame, cells, results.records),
    )
    summaries = by("defense", records(frame))
    alone, known = of_folder.claims, of_folder.known.claims
    claims = by("defense", records(claims_on(of_folder.source.name, frame, known) if alone is None else alone))
    lines = records(leaders)
    labels = [str(line["defense"]) for line in lines]
    by_label = {str(label): of_label for label, of_label in cells.groupby("defense", sort=False)}
    audited, rows = _audited(frame, lines), []
    for slug, label, line in zip(slugs(labels), labels, lines, strict=True):
        row = _row(slug, line, summaries[label], by_label[label], of_folder, setting)
        rows.append(replace(row, claims=claims.get(label, []), summary=audited[audited["defense"] == label]))
    return SiteBoard(
        slug="",
        name=name,
        title=str(manifest.get("title") or name),
        source=of_folder.source,
        setting={**setting, "dataset": portable(setting["dataset"])},
        images=int(frame["planned"].max()),
        draws=_draws(cells),
        budget="+".join(sorted({part for text in frame["budget"] for part in str(text).split("+")} - {""})),
        rows=tuple(rows),
        columns=column_names(frame, view_words),
        notes=shared,
        pictures=tuple(of_board(Threat(of_folder.frames, setting, several=False), _OF_BOARD)),
        convergence=_convergence(lines, setting, of_folder.known),
        files=of_folder.files,
        pairs=tuple(pairs_of(labels, of_folder.sides.get(tuple(setting.values()), {}))),
        protocols=_at(protocols_of(results, manifest, known), setting) if manifest.get("presets") else None,
    )


def _audited(frame: pd.DataFrame, leaders: Records) -> pd.DataFrame:
    """Return a summary with the failed checks of audits of all folders, and without ranks of defenses that fail.

    Args:
        frame: the summary.
        leaders: rows of the leaderboard.
    """
    failed = {str(line["defense"]): str(line["audit_failed"] or "") for line in leaders}
    without = [label for label, checks in failed.items() if checks]
    return ranked(frame.assign(audit=frame["defense"].map(failed)), without=without)


def _draws(cells: pd.DataFrame) -> str:
    """Return the numbers of draws of randomised defenses, in words."""
    random = cells[cells["stochastic"].astype(bool) & ~cells["seed_known"].astype(bool)]
    pairs = random[["draws", "selection"]].drop_duplicates().itertuples(index=False)
    return "; ".join(f"{held} held-out and {chosen} selection draws" for held, chosen in pairs)


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
    known, threat = of_folder.known, Threat(of_folder.frames, setting, several=False)
    here = {**setting, "dataset": portable(setting["dataset"])}
    return SiteRow(
        slug=slug,
        label=label,
        values={**worst, **line, "dataset": portable(str(line["dataset"]))},
        attacks=sorted(others, key=_strength),
        passes=passes_of(cells, of_folder.results.records),
        about=about_of(list(fingerprints_of(of_folder.manifest, label).values()), known.trained),
        claims=(),
        checks=sorted(checks, key=lambda check: _STATES.get(str(check["status"]), len(_STATES))),
        certificate=[c for c in of_folder.certificates if c["fingerprint"] in keys],
        notes=(*footnotes.of_resumed(resumed), *footnotes.mixed(ran, of_folder.manifest)),
        evidence=evidence,
        galleries=shown,
        recipes=recipes,
        pictures=(*of_rows(threat, label), *radius_of(known.curves, keys, here)) if known.compared else (),
        submissions=_submissions(of_folder.frames, label, setting) if known.compared else None,
        lines=of_folder.images.lines.get((*setting.values(), label), ()),
    )


def _submissions(frames: Frames, label: str, setting: Mapping[str, str]) -> pd.DataFrame | None:
    """Return Rob(M) of a random defense under each attack; None for a deterministic one."""
    found = frames.records(label, setting)
    several = found[(found["draws"] > 1) & (found["status"] == "ok")]
    return submission_curves(several, attacks=None) if len(several) else None


def _convergence(lines: Records, setting: Mapping[str, str], known: Known) -> tuple[Picture, ...]:
    """Return the pictures *convergence* of the rows of a board, given those of the leaderboard."""
    if known.audited is None or not known.compared:
        return ()
    labels = {key: str(line["defense"]) for line in lines for key in str(line["fingerprint"]).split("; ")}
    return tuple(convergence_of(known.audited, labels, {**setting, "dataset": portable(setting["dataset"])}))


def _strength(row: Mapping[str, Any]) -> tuple[bool, bool, float]:
    """Return what orders attacks: the strongest first, those without a number after them, unattacked images last."""
    share = row["robust_mean"]
    return row["attack"] in CLEANS, share is None, share or 0.0
