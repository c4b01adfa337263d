"""Judge adversarial images that somebody else made against a row of a results folder, under the row's own draws."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from bench.analysis.worst_case import worst_per_image
from bench.audit.challenged_row import ChallengedRow
from bench.spec.cell import PRECOMPUTED
from bench.spec.cell_columns import CellColumns
from bench.stats.bootstrap import Interval
from bench.stats.proportions import wilson
from bench.store.environment import describe_run
from bench.store.folder import CellResult, Store, write_atomic
from bench.store.manifest import read_manifest, update_manifest
from bench.store.parts import CellRecord, part_folders
from bench.store.reader import CHALLENGES, read_challenges, read_folder
from defenses.utils.errors import UserError
from defenses.utils.text import clean, counted

_LABEL = "the images of this challenge"  # while they are judged: those on record may have their name
_PLANNED = CellColumns.__annotations__.keys()  # columns of a plan


@dataclass(frozen=True, eq=False)
class Challenge:
    """The verdict on images that were given against a row.

    Args:
        row: the row.
        label: of the images, as "given:x_adv".
        results: of the cells of the images.
        before: worst case of the row without the images.
        after: the same with them.
        falls: number of images that mostly withstand all attacks of the row, and not these images.
        changed: False if the worst case of no image changes.
    """

    row: ChallengedRow
    label: str
    results: Sequence[CellResult] = field(repr=False)
    before: Interval
    after: Interval
    falls: int
    changed: bool

    def __str__(self) -> str:
        """Return what the images do to the worst case, in one line."""
        of = f"{clean(self.row.defense)} at {self.row.threat}"
        after = f"{_percent(self.after.value)} % [{_percent(self.after.low)}, {_percent(self.after.high)}]"
        if not self.changed:
            return f"{of}: {after}: {clean(self.label)} changes nothing"
        falls = (
            f"{counted(self.falls, 'image')} {'falls' if self.falls == 1 else 'fall'}"
            if self.falls
            else "no image falls"
        )
        return f"{of}: {_percent(self.before.value)} % -> {after}: {falls}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def challenge(row: ChallengedRow, images: Path, name: str | None = None) -> Challenge:
    """Judge images against a row.

    Args:
        row: the row.
        images: file of the images, see `bench.attacks.precomputed_files.read_precomputed`: those of the board, in its
            order or with their positions in the data set.
        name: of the images; None: that of the file.

    Raises:
        UserError: other images than the board's, outside the ball or the box, or of another number; a defense that
            cannot be rebuilt; an incomplete row; images that cannot be judged.
    """
    label = f"{PRECOMPUTED}{name or images.stem}"
    before = _worst(row.folder, row)
    results = row.judged(images, label)
    after = before
    if not {result.line["key"] for result in results} <= _on_record(row.folder):
        with tempfile.TemporaryDirectory(prefix="purebench-") as scratch:
            folder = Path(scratch)
            _link(row.folder, folder)
            _add(Store(folder), [replace(of, line={**of.line, "attack": _LABEL}) for of in results])
            after = _worst(folder, row)
    if len(after) != len(before):
        raise UserError(f"{row.defense}: some of the images of {images} have no verdict")
    falls = (before > 0.5) & (after[before.index] <= 0.5)
    intervals = _interval(before), _interval(after)
    return Challenge(row, label, results, *intervals, int(falls.sum()), bool((before != after[before.index]).any()))


def keep(challenged: Challenge, author: str, link: str) -> bool:
    """Add the images of a challenge to its results, whose worst case counts them from then on.

    Keys of other cells do not change, and the plan of the board, which a run writes anew, stays as it is.

    Args:
        challenged: the challenge.
        author: of the images.
        link: to where they are published.

    Returns:
        False if the same images are on record already, so that nothing is written.

    Raises:
        UserError: other images have the same name, or the folder cannot be written.
    """
    folder, results = challenged.row.folder, challenged.results
    store = Store(folder)
    with store.lock("challenge", wait=True):
        if {result.line["key"] for result in results} <= _on_record(folder):
            return False
        mine = {"defense": challenged.row.defense, "attack": challenged.label}
        lines: list[CellRecord] = read_folder(folder, lambda found, _: found)
        if any(mine.items() <= line.items() and challenged.row.is_of(line) for line in lines):
            raise UserError(f"other images are on record as {challenged.label}; give --name another name")
        for result in results:
            made = f"images of {clean(author)}, {clean(link)}"
            result.line["notes"] = [*result.line.get("notes", ()), made]
        facts = {k: v for k, v in read_manifest(folder).items() if k not in ("runs", "plan", "sum")}
        run = describe_run(challenged.row.threads, 0, challenged.row.device)
        run["finished"] = run["started"]
        run["seconds"] = round(sum(result.line["seconds_verdict"] for result in results), 3)
        update_manifest(store, facts, run)
        for result in results:
            result.line["run"] = run["id"]
        _add(store, results)
    return True


def _on_record(folder: Path) -> set[str]:
    """Return the keys of the finished cells that count in a folder."""
    lines: list[CellRecord] = read_folder(folder, lambda found, _: found)
    return {line["key"] for line in lines if line["status"] == "ok"}


def _add(store: Store, results: Sequence[CellResult]) -> None:
    """Write cells of given images, and count them."""
    for result in results:
        store.save(result)
    lines = [{k: v for k, v in result.line.items() if k in _PLANNED} for result in results]
    text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in (*read_challenges(store.folder), *lines))
    write_atomic(store.folder / CHALLENGES, text)


def _link(folder: Path, scratch: Path) -> None:
    """Make a folder of the same results, whose parts are not copied where the system has symbolic links."""
    for file in folder.iterdir():
        if file.is_file() and not file.name.startswith("."):
            shutil.copy2(file, scratch)
    (scratch / "parts").mkdir()
    for part in part_folders(folder / "parts"):
        try:
            (scratch / "parts" / part.name).symlink_to(part.resolve(), target_is_directory=True)
        except OSError:
            shutil.copytree(part, scratch / "parts" / part.name)


def _worst(folder: Path, row: ChallengedRow) -> pd.Series:
    """Return the share of draws that withstand the worst attack, by image."""
    frame = worst_per_image(folder)
    of_row = frame[(frame["defense"] == row.defense) & row.selects(frame)]
    if len(of_row) != row.planned:
        raise UserError(
            f"{row.folder} has the worst case of {row.defense} at {row.threat} on {len(of_row)} of {row.planned} "
            "images; run its board first"
        )
    return of_row.set_index("image")["robust"]


def _interval(shares: pd.Series) -> Interval:
    n, value = len(shares), float(np.mean(shares))
    low, high = wilson(value * n, n)
    return Interval(value, float(low), float(high), n)
