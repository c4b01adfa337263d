"""Read results folders into what a site shows; no model and no data set is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from bench.analysis.claim_files import Claim, read_claims
from bench.analysis.loaders import load_audits, load_certificates
from bench.site.audit_curves import curves_of
from bench.site.folder_boards import Known, boards_of
from bench.site.model import Site, SiteBoard, slugs
from bench.site.records import Records, by, records
from bench.site.sources import shown, sources_of
from bench.site.tracks import track_of
from bench.site.training import trainings
from bench.store.audits import current_audits
from defenses.utils.errors import UserError

_FRAMES = ("leaderboard", "claims")
_EVALUATED = ("a board", "audits")  # kinds of folders that may hold audits


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
    by_defense = by("fingerprint", [] if checks is None else records(checks))
    current = [audit for folder in evaluated for audit in current_audits(folder)]
    curves = curves_of(checks) if compared and checks is not None else {}
    published = read_claims() if claims is None else list(claims)
    known = Known(published, current, by_defense, checks, curves, trainings(), compared)
    read = [boards_of(folder, source, known, gallery) for folder, source in found if source.kind == "a board"]
    boards = tuple(_named([board for of_folder, _, _ in read for board in of_folder]))
    frames = {name: [frame for _, *pair in read for frame in pair[at : at + 1]] for at, name in enumerate(_FRAMES)}
    joined = {name: pd.concat(parts, ignore_index=True) for name, parts in frames.items() if parts}
    joined |= {} if checks is None else {"audits": checks}
    tracks = [track_of(folder, source) for folder, source in found if source.kind not in _EVALUATED]
    return Site(title, boards, tuple(tracks), tuple(s for _, s in found), joined, _certificates(evaluated), curves)


def _certificates(folders: Iterable[Path]) -> dict[str, Records]:
    """Return the measurements of each certificate by fingerprint, of the first folder that has them."""
    found: dict[str, Records] = {}
    for folder in folders:
        found = by("fingerprint", records(load_certificates(folder))) | found
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
