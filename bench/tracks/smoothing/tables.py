"""Tables of certified accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.analysis.columns import with_columns
from bench.report.format import interval, percent
from bench.report.plain import to_csv, to_markdown
from bench.report.table import Table
from bench.stats.proportions import wilson
from bench.store.jsonl import read
from bench.store.kinds import folder_named, refuse_other_kind
from bench.tracks.smoothing.noisy_defense import number
from defenses.utils.errors import UserError
from defenses.utils.files import write_whole
from defenses.utils.parameters import canonical

if TYPE_CHECKING:
    import pandas as pd

RADII = ("0", "1/4", "1/2", "3/4", "1")  # of the paper's tables
_COLUMNS = {
    "sigma": "float64",
    "radius": "str",
    "n": "int64",
    "alpha": "float64",
    "images": "int64",
    **dict.fromkeys(("abstained", "certified", "low", "high", "mean_radius"), "float64"),
}


@with_columns
def load_smoothing(path: str | Path, radii: Sequence[str] = RADII) -> pd.DataFrame:
    """Read the certified accuracy of a defense from a folder of `purebench smooth`.

    Args:
        path: the folder.
        radii: L2 radii, as fractions or decimals.

    Returns:
        A row per standard deviation of the noise and radius. Columns: those of `purebench columns load_smoothing`.

    Raises:
        UserError: results of another kind or none, a damaged file, or a radius that is no number.
    """
    import pandas as pd

    folder = folder_named(path)
    refuse_other_kind(folder, "load_smoothing")
    return pd.DataFrame(_rows(folder, radii), columns=list(_COLUMNS)).astype(_COLUMNS)


def _rows(folder: Path, radii: Sequence[str]) -> list[dict[str, Any]]:
    files = sorted((read(path) for path in folder.glob("sigma-*.jsonl")), key=lambda content: content[0]["sigma"])
    if not files:
        raise UserError(f"{folder} has no certificates; run purebench smooth first")
    table_rows = []
    reach = {text: number("radius", text) for text in radii}
    for about, entries, _ in files:
        right = {k: e["radius"] if e["prediction"] == e["label"] else -1.0 for k, e in entries.items()}
        images = len(entries)
        if not images:
            continue
        for text in radii:
            count = sum(radius >= reach[text] for radius in right.values())
            low, high = wilson(count, images)
            table_rows.append(
                {
                    "sigma": about["sigma"],
                    "radius": text,
                    "n": about["n"],
                    "alpha": about["alpha"],
                    "images": images,
                    "abstained": sum(e["prediction"] < 0 for e in entries.values()) / images,
                    "certified": count / images,
                    "low": float(low),
                    "high": float(high),
                    "mean_radius": sum(max(r, 0.0) for r in right.values()) / images,
                }
            )
    return table_rows


def table(results: Sequence[Mapping[Any, Any]], title: str) -> Table:
    """Return the certified accuracy in percent with its interval, by sigma and radius.

    Args:
        results: rows of `load_smoothing`.
        title: of the table.
    """
    radii = list(dict.fromkeys(row["radius"] for row in results))
    lines = []
    for sigma in dict.fromkeys(row["sigma"] for row in results):
        by_radius = {row["radius"]: row for row in results if row["sigma"] == sigma}
        first = by_radius[radii[0]]
        cells = [interval(r["certified"], r["low"], r["high"], 1) for r in by_radius.values()]
        head = (canonical(sigma), str(first["images"]), f"{first['n']:,}", percent(first["abstained"], 1))
        lines.append((*head, *cells, f"{first['mean_radius']:.3f}"))
    columns = ("sigma", "images", "n", "abstained %", *(f"r = {r}" for r in radii), "mean radius")
    chances: dict[float, list[str]] = {}
    for row in results:
        chances.setdefault(row["alpha"], []).append(canonical(row["sigma"]))
    alpha = ", ".join(
        f"{chance:g}" + (f" (sigma {', '.join(dict.fromkeys(of))})" if len(chances) > 1 else "")
        for chance, of in chances.items()
    )
    notes = (
        "certified accuracy: share of images, in percent, whose smoothed prediction is right and certified at L2 "
        "radius r or more; abstentions count as wrong. Intervals: Wilson, 95%, over images.",
        f"r = 0: right and not abstained. Each certificate is wrong with a chance of at most {alpha}. n: draws of "
        "each image; no radius is larger than sigma times the normal quantile of alpha^(1/n).",
    )
    return Table(title, columns, tuple(lines), notes)


def write(folder: Path, radii: Sequence[str], title: str) -> Table:
    """Write tables.md and tables.csv of a folder, and return the table.

    Raises:
        UserError: as `load_smoothing`; or the folder cannot be written.
    """
    frame = load_smoothing(folder, radii)
    content = table(frame.to_dict("records"), title)
    write_whole(folder / "tables.md", to_markdown(content), "certificates are kept")
    write_whole(folder / "tables.csv", to_csv(frame), "certificates are kept")
    return content
