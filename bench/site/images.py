"""Images and cells of a results folder, as a site shows them: matrices, galleries and recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

from bench.analysis.results import Results
from bench.analysis.rows import SETTING
from bench.site.evidence import Evidence, Setting, evidence_of
from bench.site.gallery import Gallery, galleries
from bench.site.recipes import Recipe, RowKey, recipes_of
from bench.store.parts import CellRecord
from bench.store.reader import Part, read_folder


@dataclass(frozen=True, eq=False)
class Images:
    """Images and cells of a results folder.

    Args:
        evidence: matrices of each defense, one for each training.
        galleries: by position of the first cell of an attack.
        recipes: of each row of tables.
        lines: cells of each defense.
        parts: of the folder.
    """

    evidence: Mapping[Setting, list[Evidence]]
    galleries: Mapping[int, Gallery]
    recipes: Mapping[RowKey, Recipe]
    lines: Mapping[Setting, Sequence[CellRecord]]
    parts: list[Part]

    def of_row(
        self, setting: Setting
    ) -> tuple[tuple[Evidence, ...], dict[int, Gallery], dict[tuple[str, str], Recipe]]:
        """Return matrices, galleries, and recipes by attack and view of a defense in a setting."""
        evidence = tuple(self.evidence.get(setting, ()))
        firsts = [column.cells[0] for matrix in evidence for column in matrix.columns]
        shown = {first: self.galleries[first] for first in firsts if first in self.galleries}
        recipes = {(row[-2], row[-1]): recipe for row, recipe in self.recipes.items() if row[:-2] == setting}
        return evidence, shown, recipes


def images_of(folder: Path, results: Results, count: int) -> Images:
    """Return images and cells of a results folder.

    Args:
        folder: the folder.
        results: its contents.
        count: most images of a gallery.

    Raises:
        UserError: a damaged file.
    """
    return read_folder(folder, partial(_images, results=results, count=count))


def _images(lines: list[CellRecord], parts: list[Part], *, results: Results, count: int) -> Images:
    evidence = evidence_of(results)
    scaled = [(matrix, scale_of(*setting[3:5])) for setting, found in evidence.items() for matrix in found]
    shown = galleries(lines, parts, results.records, scaled, count)
    by_row: dict[Setting, list[CellRecord]] = {}
    for line in lines:
        by_row.setdefault(tuple(str(line.get(name)) for name in (*SETTING, "defense")), []).append(line)
    return Images(evidence, shown, recipes_of(lines), by_row, parts)


def scale_of(norm: str, eps: str) -> float:
    """Return the difference that is shown black or white: eps, as far as a pixel can reach it.

    Args:
        norm: of the threat.
        eps: radius, as "8/255".
    """
    try:
        radius = float(Fraction(eps))
    except (ValueError, ZeroDivisionError):
        radius = 1.0
    return min(radius, 1.0) if norm != "L0" and radius > 0 else 1.0
