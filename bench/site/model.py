"""Contents of a site: boards with their rows, tables of other results, and the folders they come from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.report.protocol_table import protocol_table
from bench.report.table import Table
from bench.spec.cell import digest

if TYPE_CHECKING:
    import pandas as pd

    from bench.analysis.diff.difference import Difference
    from bench.figures.picture import Picture
    from bench.site.audit_curves import Curves
    from bench.site.evidence import Evidence
    from bench.site.gallery import Gallery
    from bench.site.pairs import Pair
    from bench.site.recipes import Recipe
    from bench.site.training import Training
    from bench.store.parts import CellRecord

_RESERVED = re.compile(r"index|attacks|compare|diff|.*-images")  # other pages of a board


@dataclass(frozen=True)
class Run:
    """A run of a results folder.

    Args:
        id: by which cells name it.
        command: that was typed, or "(from Python)".
        commit: git commit of purebench, "" if unknown.
        dirty: True with changes beside the commit.
        started: time in UTC, "" if unknown.
        seconds: NaN for a run that did not end.
        machine: processor, system and device.
        threads: torch threads of a process, and processes, in words.
        versions: of packages.
    """

    id: str
    command: str
    commit: str
    dirty: bool
    started: str
    seconds: float
    machine: str
    threads: str
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Source:
    """A results folder.

    Args:
        name: the folder as the reader of the site would write it.
        kind: see `bench.store.kinds.kind_of`.
        runs: its runs, in order.
        files: sha256 of its plan, manifest and parts, by name.
    """

    name: str
    kind: str
    runs: tuple[Run, ...]
    files: Mapping[str, str]


@dataclass(frozen=True)
class StoredFile:
    """A file of a results folder.

    Args:
        path: within the folder.
        size: in bytes.
        sha256: in hexadecimal.
    """

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Part:
    """A part of a defense.

    Args:
        role: "classifier", "purifier", "filter" or "detector"; "defense" where no card tells.
        name: of the part.
        parameters: as "name = value, name = value"; "" without any.
    """

    role: str
    name: str
    parameters: str = ""


@dataclass(frozen=True)
class About:
    """Facts about a defense beside its numbers.

    Args:
        year: of the paper; None without one.
        venue: and year.
        licence: of the implementation.
        parts: in the order in which an image passes them.
        weights: sha256 of weights files by name.
        trainings: of those weights that have a description beside them, by sha256.
        card: True if a card describes it; else paper and licence are not known.
    """

    year: int | None = None
    venue: str = ""
    licence: str = ""
    parts: tuple[Part, ...] = ()
    weights: tuple[tuple[str, str], ...] = ()
    trainings: Mapping[str, Training] = field(default_factory=dict)
    card: bool = False

    @property
    def undefended(self) -> bool:
        """True for the classifier without a defense, whatever stands behind it."""
        return [(part.role, part.name) for part in self.parts[:1]] == [("classifier", "undefended")]


@dataclass(frozen=True, eq=False)
class SiteRow:
    """A defense on a board.

    Args:
        slug: name of its page without ".html".
        label: of the defense.
        values: columns of `bench.leaderboard`, and of the worst case in `bench.summary`.
        attacks: rows of `bench.summary`, strongest first; clean images and uniform noise last.
        passes: forward passes of a prediction; NaN if not counted.
        about: the defense.
        claims: rows of `bench.claims_table`.
        checks: rows of `bench.load_audits`, failed ones first.
        certificate: rows of `bench.load_certificates`.
        notes: that concern this row alone.
        evidence: its images, a matrix for each training.
        galleries: pictures by position of the first cell of an attack.
        pictures: of its attacks, draws, margins, and accuracy against the radius.
        recipes: of its attacks by (attack, view).
        submissions: rows of `bench.plots.attacks.submission_curves`, of all attacks; None if it has one draw.
        lines: its cells, see `bench.store.reader.read_folder`.
        summary: its rows of `bench.summary`, a data frame.
    """

    slug: str
    label: str
    values: Mapping[str, Any]
    attacks: Sequence[Mapping[str, Any]]
    passes: float
    about: About
    claims: Sequence[Mapping[str, Any]]
    checks: Sequence[Mapping[str, Any]]
    certificate: Sequence[Mapping[str, Any]]
    notes: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    galleries: Mapping[int, Gallery] = field(default_factory=dict)
    recipes: Mapping[tuple[str, str], Recipe] = field(default_factory=dict)
    pictures: tuple[Picture, ...] = ()
    submissions: pd.DataFrame | None = field(default=None, repr=False)
    lines: Sequence[CellRecord] = field(default=(), repr=False)
    summary: pd.DataFrame | None = field(default=None, repr=False)

    @property
    def ranked(self) -> bool:
        """True for a row with a rank."""
        return self.values["rank_low"] is not None


@dataclass(frozen=True, eq=False)
class SiteBoard:
    """A results folder with a plan, under one threat.

    Args:
        slug: name of its folder in the site.
        name: of the board.
        title: of its pages.
        source: the results folder.
        setting: the columns `bench.analysis.rows.SETTING`.
        images: number of planned images.
        draws: held-out and selection draws of randomised defenses, in words.
        budget: "full" or "reduced" attacks.
        rows: the best worst case first, those without a rank last.
        columns: short name of each attack by (attack, view).
        notes: that concern all rows.
        pictures: of all its rows.
        convergence: accuracy of its audited rows against the effort of the attack.
        files: those of each of its parts, by the name of the part.
        pairs: of its rows.
        protocols: rows of `bench.reproduction`; None without [[protocol]].
    """

    slug: str
    name: str
    title: str
    source: Source
    setting: Mapping[str, str]
    images: int
    draws: str
    budget: str
    rows: tuple[SiteRow, ...]
    columns: Mapping[tuple[str, str], str]
    notes: tuple[str, ...] = ()
    pairs: tuple[Pair, ...] = ()
    pictures: tuple[Picture, ...] = ()
    convergence: tuple[Picture, ...] = ()
    files: Mapping[str, tuple[StoredFile, ...]] = field(default_factory=dict)
    protocols: pd.DataFrame | None = field(default=None, repr=False)

    @property
    def protocol_tables(self) -> list[Table]:
        """The table of its protocols beside the full one, if it has any."""
        return [] if self.protocols is None or self.protocols.empty else [protocol_table(self.protocols)]

    @property
    def threat(self) -> str:
        """Norm, radius and targets, as "Linf 1/5"."""
        target = "" if self.setting["targets"] == "none" else f", target {self.setting['targets']}"
        return f"{self.setting['norm']} {self.setting['eps']}{target}"


@dataclass(frozen=True, eq=False)
class Track:
    """Results that are no board: accuracy under corruptions, certified radii or poisoned trainings.

    Args:
        slug: anchor on the first page.
        title: of its card.
        source: the results folder.
        tables: its tables.
        pictures: of them.
    """

    slug: str
    title: str
    source: Source
    tables: tuple[Table, ...]
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True, eq=False)
class Site:
    """Contents of all pages.

    Args:
        title: of the site.
        boards: with their rows.
        tracks: other results.
        sources: all results folders, in the order of the command.
        frames: data files by name: `leaderboard`, `claims`, `reported`, `audits`.
        certificates: rows of `bench.load_certificates` by fingerprint.
        curves: of each audit, see `bench.site.audit_curves`.
        differences: to earlier runs, by the name of the results folder.
    """

    title: str
    boards: tuple[SiteBoard, ...]
    tracks: tuple[Track, ...]
    sources: tuple[Source, ...]
    frames: Mapping[str, pd.DataFrame] = field(repr=False)
    certificates: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict, repr=False)
    curves: Curves = field(default_factory=dict, repr=False)
    differences: Mapping[str, Difference] = field(default_factory=dict, repr=False)


def slugs(names: Iterable[str]) -> list[str]:
    """Return names as file names of lower-case letters, digits and "-", all different.

    A name that is not told apart by them, has none of them, or stands for another page, gets a digest at its end: so no
    file name depends on which other names there are, but for those.
    """
    texts = list(names)
    short = [re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:48].strip("-") for text in texts]
    return [
        name
        if name and short.count(name) == 1 and not _RESERVED.fullmatch(name)
        else f"{name or 'x'}-{digest(text)[:8]}"
        for name, text in zip(short, texts, strict=True)
    ]
