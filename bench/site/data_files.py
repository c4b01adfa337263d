"""Data files of a site: its frames as CSV and JSON."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.report.crate import FILE, Described, crate
from bench.report.plain import to_csv
from bench.site.evidence import Evidence
from bench.site.model import Site, SiteBoard, SiteRow
from bench.site.records import records

if TYPE_CHECKING:
    import pandas as pd

CRATE = f"data/{FILE}"
_HELD = {
    "leaderboard": "a row per board, threat and defense: bench.leaderboard",
    "claims": "published accuracies with their verdicts: bench.claims_table",
    "reported": "entries of RobustBench's model_info: reported, best known and AutoAttack accuracy, with ranks",
    "audits": "checks of audits: bench.load_audits",
}


def data_files(site: Site) -> dict[str, str]:
    """Return the data files of a site by path."""
    files = {f"data/{name}.csv": to_csv(_flat(frame)) for name, frame in site.frames.items()}
    if "leaderboard" in site.frames:
        content = {"schema": 1, "rows": records(site.frames["leaderboard"])}
        files["data/leaderboard.json"] = json.dumps(content, indent=1, allow_nan=False) + "\n"
    return files


def image_files(site: Site) -> dict[str, bytes]:
    """Return the verdicts of all images of each board as CSV, compressed, and the sheets of pictures, by path."""
    files = {f"data/images-{b.slug}.csv.gz": gzip.compress(_verdicts(b).encode(), mtime=0) for b in site.boards}
    shown = [g for board in site.boards for row in board.rows for g in row.galleries.values()]
    return files | {f"i/{g.name}.png": g.sheet.png for g in shown if g.sheet is not None}


def _verdicts(board: SiteBoard) -> str:
    """Return a row per image and attack as CSV: what the pages of images show, at full precision."""
    import pandas as pd

    parts = [_of_attack(row, m, at) for row in board.rows for m in row.evidence for at in range(len(m.columns))]
    if not parts:
        return ",".join(_VERDICTS) + "\n"
    frame = pd.DataFrame({name: np.concatenate([part[name] for part in parts]) for name in _VERDICTS})
    return to_csv(frame[frame["withstood"].notna()])


def _of_attack(row: SiteRow, matrix: Evidence, at: int) -> dict[str, Any]:
    """Return the columns of an attack on a row, one value per image."""
    column = matrix.columns[at]
    values = {
        "defense": row.label,
        "training_seed": matrix.training_seed,
        "attack": column.attack,
        "view": column.view,
        "image": matrix.index,
        "label": matrix.label,
        "clean": matrix.clean,
        "withstood": column.shares,
        "refused": column.refused,
        "size": column.sizes,
        "breaks": matrix.broken[at],
        "decides": matrix.deciding == at,
    }
    return {name: np.broadcast_to(np.asarray(value), len(matrix.index)) for name, value in values.items()}


_VERDICTS = (
    *("defense", "training_seed", "attack", "view", "image", "label"),
    *("clean", "withstood", "refused", "size", "breaks", "decides"),
)


def about_files(site: Site) -> dict[str, str]:
    """Return what the data files of a site hold, by path."""
    texts = {f"data/{name}.csv": _HELD[name] for name in site.frames}
    of_images = "a row per image and attack: draws that withstand, size, and if it breaks or decides the image"
    texts |= {f"data/images-{board.slug}.csv.gz": of_images for board in site.boards}
    if "leaderboard" in site.frames:
        texts["data/leaderboard.json"] = "the same as JSON"
    texts[CRATE] = "runs, code and files as an RO-Crate: Process Run Crate 0.5"
    return texts | {"data/site.json": "results folders, and sha256 of every file of this site"}


def crate_file(site: Site, folders: Iterable[Path], files: Mapping[str, bytes]) -> bytes:
    """Return the RO-Crate metadata of the folder of data: its files, and the runs that they come from.

    Args:
        site: the site.
        folders: its results folders, in the order of `site.sources`.
        files: of the site, by path.
    """
    described = [Described(folder, s.name, None) for folder, s in zip(folders, site.sources, strict=True)]
    held = {path.removeprefix("data/"): data for path, data in files.items() if path.startswith("data/")}
    about = "Verdicts, claims and audits of the site, and the runs that they come from."
    return crate(described, held, name=site.title, about=about).encode()


def _flat(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame with numbers and lists within a cell as JSON."""
    nested = [name for name in ("numbers", "images") if name in frame]
    return frame.assign(**{name: frame[name].map(_json) for name in nested})


def _json(value: Any) -> str:
    return json.dumps(list(value) if isinstance(value, tuple) else value, sort_keys=True)
