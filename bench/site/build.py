"""Build a site: all its files in memory, then the folder."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import bench
import defenses
import leaderboards
from bench.analysis.claim_files import Claim, read_claims
from bench.site.model import Site, SiteBoard, Source
from bench.site.site_folder import DESCRIPTION, check_ours, differences, is_current, write_site
from bench.site.sources import sources_of
from bench.store.kinds import Paths, paths_of
from bench.store.parts import damage, part_folders
from defenses.utils.errors import UserError
from defenses.zoo.weight_paths import described_roots

if TYPE_CHECKING:
    from bench.site.plots import Plots

GALLERY = 40  # images of an attack that are shown
_SCHEMA = 1
_LIBRARIES = ("pandas", "numpy", "scipy", "jinja2", "pillow", "matplotlib")
_CODE = ("*.py", "*.j2", "*.css", "*.js", "*.toml")  # whatever makes the same records another page


@dataclass(frozen=True)
class BuiltSite:
    """A site in its folder.

    Args:
        folder: of the site.
        files: paths within it, sorted.
    """

    folder: Path
    files: tuple[str, ...]

    @property
    def index(self) -> Path:
        """The first page."""
        return self.folder / "index.html"


@dataclass(frozen=True)
class SiteOptions:
    """Contents of a site beside its results; see `build_site`."""

    title: str = "purebench"
    gallery: int = GALLERY
    against: tuple[Path, ...] = ()
    claims: tuple[Path, ...] = ()

    @classmethod
    def of(cls, title: str, gallery: int, against: Paths, claims: Paths) -> SiteOptions:
        """Return options from the arguments of `build_site`."""
        return cls(title, gallery, tuple(paths_of(against)), tuple(paths_of(claims)))


def build_site(
    results: Paths,
    out: str | Path,
    title: str = "purebench",
    *,
    gallery: int = GALLERY,
    against: Paths = (),
    claims: Paths = (),
) -> BuiltSite:
    """Build the site of some results folders, unless it is there already.

    Args:
        results: a results folder, or several.
        out: folder of the site: missing, empty, or of an earlier build.
        title: of the site.
        gallery: most images of an attack that are shown; 0: none.
        against: results folders of earlier runs of the boards, each compared with the present one.
        claims: further claims than those of purebench: TOML files, JSON files of RobustBench's `model_info`, or folders
            of them.

    Returns:
        The site: its folder, its files, and `.index`, the page to open.

    Raises:
        UserError: bad results or claims, or `out` holds something else or cannot be written.
    """
    check_ours(out := Path(out))
    folders, options = paths_of(results), SiteOptions.of(title, gallery, against, claims)
    inputs = inputs_of(folders, options)
    if is_current(out, inputs):
        known = json.loads((out / DESCRIPTION).read_bytes())["files"]
        return BuiltSite(out, tuple(sorted([*known, DESCRIPTION])))
    files = site_files(folders, inputs, options)
    write_site(out, files)
    return BuiltSite(out, tuple(sorted(files)))


def check_site(
    results: Paths,
    out: str | Path,
    title: str = "purebench",
    *,
    gallery: int = GALLERY,
    against: Paths = (),
    claims: Paths = (),
) -> list[str]:
    """Return how a folder differs from the site of some results, as lines; nothing is written.

    Args:
        results: see `build_site`, as all other arguments.
        out: folder of the site.
        title: of the site.
        gallery: of images.
        against: earlier runs.
        claims: further claims.
    """
    folders, options = paths_of(results), SiteOptions.of(title, gallery, against, claims)
    return differences(Path(out), site_files(folders, inputs_of(folders, options), options))


def site_files(results: list[Path], inputs: Mapping[str, object], options: SiteOptions) -> dict[str, bytes]:
    """Return the files of a site by path, `DESCRIPTION` last.

    Args:
        results: the folders.
        inputs: see `inputs_of`.
        options: see there.
    """
    from bench.site.collect import collect
    from bench.site.data_files import CRATE, crate_file, image_files
    from bench.site.diff_page import differences_of, earlier_runs
    from bench.site.plots import Plots
    from bench.site.robustbench import reported_frame

    further, entries = _further_claims(options)
    site, plots = collect(results, options.title, [*read_claims(), *further], gallery=options.gallery), Plots()
    frames = {**site.frames, **reported_frame(entries)}
    site = replace(site, differences=differences_of(earlier_runs(results, options.against)), frames=frames)
    with _kept():
        texts = _texts(site, plots)
    assets = sorted((Path(__file__).parent / "assets").iterdir())
    texts |= {f"assets/{asset.name}": asset.read_text(encoding="utf-8") for asset in assets if asset.suffix != ".pyc"}
    files = {path: text.encode("utf-8", "replace") for path, text in texts.items()} | image_files(site)
    files |= plots.files
    files[CRATE] = crate_file(site, [folder for folder, _ in sources_of(results)], files)
    sums = {path: hashlib.sha256(data).hexdigest() for path, data in sorted(files.items())}
    described = json.dumps({**inputs, "files": sums}, indent=1) + "\n"
    return files | {DESCRIPTION: described.encode()}


@contextmanager
def _kept() -> Iterator[None]:
    """Keep Python from searching all that is read for cycles at each picture, a twentieth of the time of a build."""
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000, *thresholds[1:])  # a picture makes thousands of objects
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def _texts(site: Site, plots: Plots) -> dict[str, str]:
    """Return the pages by path, and other texts; pictures are added to `plots`."""
    from bench.site.audits_page import audit_pages, audits_of, audits_page
    from bench.site.claims_page import claims_page
    from bench.site.data_files import about_files, data_files
    from bench.site.pages import index_page, method_page, reproduce_page
    from bench.site.submit_page import submit_page

    audits = audits_of(site)
    texts = {
        "index.html": index_page(site, about_files(site), plots),
        "method.html": method_page(site),
        "reproduce.html": reproduce_page(site),
        "submit.html": submit_page(site),
        "audits.html": audits_page(site, audits, plots),
        "claims.html": claims_page(site, plots),
        **audit_pages(site, audits, plots),
        **data_files(site),
    }
    for board in site.boards:
        texts |= board_pages(site, board, plots) | _row_pages(site, board, plots)
    return texts


def board_pages(site: Site, board: SiteBoard, plots: Plots) -> dict[str, str]:
    """Return the pages of a board by path, without those of its rows; their pictures are added to `plots`."""
    from bench.site.attacks_page import attacks_page
    from bench.site.board import board_page
    from bench.site.compare_page import compare_page
    from bench.site.diff_page import diff_page

    texts = {
        f"b/{board.slug}/index.html": board_page(site, board, plots),
        f"b/{board.slug}/attacks.html": attacks_page(site, board, plots),
        f"b/{board.slug}/compare.html": compare_page(site, board),
    }
    if found := site.differences.get(board.source.name):
        texts[f"b/{board.slug}/diff.html"] = diff_page(site, board, found)
    return texts


def _row_pages(site: Site, board: SiteBoard, plots: Plots) -> dict[str, str]:
    """Return the pages of the rows of a board, with their files, as `board_pages`."""
    from bench.site.images_page import images_page
    from bench.site.row import row_page
    from bench.site.row_files import row_files

    texts: dict[str, str] = {}
    for row in board.rows:
        files = row_files(board, row)
        texts |= files.texts(board, row)
        texts[f"b/{board.slug}/{row.slug}.html"] = row_page(site, board, row, plots, files)
        texts[f"b/{board.slug}/{row.slug}-images.html"] = images_page(site, board, row)
    return texts


def inputs_of(results: list[Path], options: SiteOptions) -> dict[str, object]:
    """Return what a site is made of: results, by their checksums, claims and code.

    Args:
        results: the folders.
        options: what it shows beside them.

    Raises:
        UserError: bad results, or a damaged part.
    """
    found = sources_of(results)
    earlier = sources_of(options.against) if options.against else []
    for folder, _ in (*found, *earlier):
        for part in part_folders(folder / "parts"):
            if problem := damage(part):
                raise UserError(f"{part}: {problem}; run the board again, which redoes its cells")
    return {
        "schema": _SCHEMA,
        "purebench": bench.__version__,
        "title": options.title,
        "gallery": options.gallery,
        "code": _code(),
        "results": [_described(source) for _, source in found],
        **({"against": [_described(source) for _, source in earlier]} if earlier else {}),
        **({"claims": hashlib.sha256(repr(_further_claims(options)).encode()).hexdigest()} if options.claims else {}),
    }


def _further_claims(options: SiteOptions) -> tuple[list[Claim], list[dict[str, object]]]:
    """Return further claims and rows of `model_info`, named by data set, norm and file, wherever their folder lies."""
    if not options.claims:
        return [], []
    from bench.report.model_info_claims import further_claims  # imports pandas

    claims, entries = further_claims(options.claims)
    return claims, [entry | {"results": "/".join(Path(str(entry["results"])).parts[-3:])} for entry in entries]


def _described(source: Source) -> dict[str, str]:
    text = json.dumps(source.files, sort_keys=True)
    return {"folder": source.name, "kind": source.kind, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def _code() -> str:
    """Return a digest of code, cards, claims, descriptions of weights, and versions of libraries."""
    digest = hashlib.sha256(" ".join(version(name) for name in _LIBRARIES).encode())
    roots = [Path(package.__file__ or "").parent for package in (bench, defenses, leaderboards)]
    files = [file for root in roots for pattern in _CODE for file in root.rglob(pattern)]
    files += [file for root in described_roots() for file in Path(root).rglob("*.json")]
    for file in sorted(set(files)):
        digest.update(file.name.encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
