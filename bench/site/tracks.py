"""Results that are no board, as tables."""

from __future__ import annotations

from pathlib import Path

from bench.figures.pictures import pictures as of_tracks
from bench.report.table import Table
from bench.site.model import Source, Track, slugs
from bench.store.manifest import read_manifest
from defenses.utils.names import portable


def track_of(folder: Path, source: Source) -> Track:
    """Return the tables of a folder of corruptions, certified radii or poisoned trainings.

    Raises:
        UserError: a damaged file.
    """
    tables = {
        "accuracy under corruptions": _corruptions,
        "certified radii": _smoothing,
        "poisoned trainings": _poisoning,
    }[source.kind](folder)
    (slug,) = slugs([source.name])
    drawn = tuple(of_tracks(folder)) if source.kind != "poisoned trainings" else ()
    return Track(slug, tables[0].title.partition(": mean over")[0], source, tuple(tables), drawn)


def _corruptions(folder: Path) -> list[Table]:
    from bench.tracks.corruptions.tables import load_corruptions, tables

    return tables(load_corruptions(folder).to_dict("records"), f"Corruptions of {_data(folder)}")


def _smoothing(folder: Path) -> list[Table]:
    from bench.tracks.smoothing.tables import load_smoothing, table

    fingerprints = read_manifest(folder).get("defenses", {}).values()
    names = ", ".join(dict.fromkeys(portable(str(f.get("name"))) for f in fingerprints)) or folder.resolve().name
    return [table(load_smoothing(folder).to_dict("records"), f"Certified accuracy: {names} on {_data(folder)}")]


def _poisoning(folder: Path) -> list[Table]:
    from bench.tracks.poisoning.tables import load_poisoning, poisoning_table

    return [poisoning_table(folder, load_poisoning(folder))]


def _data(folder: Path) -> str:
    """Return data set and split in words."""
    manifest = read_manifest(folder)
    return f"{portable(str(manifest.get('dataset', 'unknown data')))} ({manifest.get('split', 'test')})"
