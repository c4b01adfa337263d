"""Checks of the cells of a submission: keys, images, ball, draws. Each yields a line a cell that fails."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd

from bench.audit.reproduction.rebuild import rebuild_cell
from bench.spec.cell import PRECOMPUTED
from bench.spec.threat import ThreatModel, distances
from bench.store.parts import CellRecord
from bench.submissions.cells import CellData, CleanImages, cell_name
from defenses.utils.arrays import I64

_BOX = 1e-6  # as `bench.spec.threat.in_box`
# columns of a line that its identity gives; labels and words for tables are free
_GIVEN = (
    "gradient",
    "eot",
    "runs",
    "dataset",
    "split",
    "block",
    "images",
    "norm",
    "eps",
    "targets",
    "seed",
    "draws",
    "selection",
    "compute",
)


def key_problems(lines: Iterable[CellRecord]) -> Iterator[str]:
    """Yield the cells whose key is not that of their identity, or whose line says something else."""
    for line in lines:
        name, cell = cell_name(line), rebuild_cell(line)
        if cell is None:
            yield f"{name}: the key {line['key']} is not what its identity gives"
            continue
        columns = cell.columns()
        if other := [key for key in _GIVEN if columns.get(key) != line.get(key)]:
            yield f"{name}: {other[0]} is {line.get(other[0])!r} in its line, {columns.get(other[0])!r} in its identity"


def challenge_problems(kept: Iterable[CellRecord], lines: Sequence[CellRecord]) -> Iterator[str]:
    """Yield the kept challenges that are no images given against a cell of the row.

    Args:
        kept: lines of the challenges.
        lines: of the cells of the plan.
    """
    keys, judged = {line["key"] for line in lines}, {_but_attack(line) for line in lines}
    for line in kept:
        if line["key"] in keys or not line["attack"].startswith(PRECOMPUTED):
            yield f"{cell_name(line)}: it stands among the challenges, and is none"
        elif not str(line["identity"]["attack"][0]).startswith(PRECOMPUTED) or _but_attack(line) not in judged:
            yield f"{cell_name(line)}: the challenge is of no cell of this row"


def _but_attack(line: CellRecord) -> str:
    """Return the identity of a cell but for its attack, as text."""
    return json.dumps({key: value for key, value in line["identity"].items() if key != "attack"}, sort_keys=True)


def image_problems(cells: Iterable[CellData], clean: CleanImages) -> Iterator[str]:
    """Yield the cells that were judged on other images than `clean`."""
    of_block: dict[tuple[str, int], tuple[int, ...]] = {}
    for cell in cells:
        records, line = cell.records, cell.line
        if str(line["identity"]["data"][2]) != clean.revision:
            yield f"{cell.name}: the data set is of revision {line['identity']['data'][2]}, not {clean.revision}"
        index = tuple(map(int, records.get("index", ())))
        if len(index) != line["images"] or len({*index}) != len(index):
            yield f"{cell.name}: {len({*index})} images have a record, not {line['images']}"
        elif of_block.setdefault((f"{line['dataset']} {line['split']}", line["block"]), index) != index:
            yield f"{cell.name}: its images are not those of the other attacks"
        for i, label, sha in zip(index, records.get("label", ()), records.get("sha", ()), strict=True):
            if clean.sha.get(i) != sha or clean.y.get(i) != int(label):
                yield f"{cell.name}: image {i} or its label is not that of the data"
                break


def ball_problems(cells: Iterable[CellData], clean: CleanImages) -> Iterator[str]:
    """Yield the cells with a stored image outside the box or the ball.

    Images beyond eps of an attack that minimises a distance are no counterexamples, and are marked as such.
    """
    from torch import from_numpy

    for cell in cells:
        line, index = cell.line, [int(i) for i in cell.records.get("index", ())]
        if cell.images is None or len(cell.images) != len(index):
            yield f"{cell.name}: {0 if cell.images is None else len(cell.images)} images for {len(index)} records"
            continue
        if missing := [i for i in index if i not in clean.x or clean.x[i].shape != cell.images.shape[1:]]:
            yield f"{cell.name}: no clean image {missing[0]} of this shape"
            continue
        images = cell.images.astype(np.float64)
        boxed = ((images >= -_BOX) & (images <= 1 + _BOX)).all((1, 2, 3))
        threat = ThreatModel.of(line["norm"], line["eps"])
        x = from_numpy(np.stack([clean.x[i] for i in index]))
        sizes = distances(x, from_numpy(cell.images))[threat.norm].numpy()
        inside = sizes <= float(threat.eps) + threat.tolerance
        if line["minimisation"]:
            inside |= cell.records["beyond"].to_numpy(bool)
        if len(out := np.flatnonzero(~boxed)):
            yield f"{cell.name}: image {index[out[0]]} leaves [0, 1]{_more(out)}"
        if len(out := np.flatnonzero(~inside)):
            yield f"{cell.name}: image {index[out[0]]} is {sizes[out[0]]:.6f} away, eps is {line['eps']}{_more(out)}"


def _more(found: Sequence[int] | I64) -> str:
    return f", and {len(found) - 1} more" if len(found) > 1 else ""


def draw_problems(cells: Iterable[CellData]) -> Iterator[str]:
    """Yield the cells whose draws are not those that their identity names, or whose counts are not of their draws."""
    for cell in cells:
        held_out, selection, *_ = cell.line["identity"]["verdict"]
        judged = cell.records[cell.records["status"] == "ok"].sort_values("index", kind="stable")
        draws = cell.draws.sort_values(["index", "draw"], kind="stable") if len(cell.draws) else cell.draws
        if {*draws.get("index", ())} != {*judged["index"]}:
            yield f"{cell.name}: the draws are not of the images that were judged"
        elif len(judged) and (other := _other_draws(draws, held_out, selection)) is not None:
            wanted = f"the {selection} for selection and the {held_out} held out"
            yield f"{cell.name}: image {other} has other draws than {wanted}"
        elif len(judged):
            counts = _counts(draws, judged["label"].to_numpy(), selection + held_out)
            for name, values in counts.items():
                if len(at := np.flatnonzero(judged[name].to_numpy() != values)):
                    stored, image = (judged[column].to_numpy()[at[0]] for column in (name, "index"))
                    yield f"{cell.name}: {name} of image {image} is {stored}, and {values[at[0]]} by its draws"
                    break


def _other_draws(draws: pd.DataFrame, held_out: int, selection: int) -> int | None:
    """Return the first image whose draws are not 0, 1, ..., those for selection first; None if all are."""
    place = draws.groupby("index").cumcount().to_numpy()
    wrong = (draws["draw"].to_numpy() != place) | (draws["held_out"].to_numpy(bool) != (place >= selection))
    number = draws.groupby("index")["draw"].transform("size").to_numpy()
    at = np.flatnonzero(wrong | (number != selection + held_out))
    return int(draws["index"].to_numpy()[at[0]]) if len(at) else None


def _counts(draws: pd.DataFrame, labels: I64, number: int) -> dict[str, I64]:
    """Return the counts of records, [B] each, from the draws of their images, sorted by image and draw.

    Args:
        draws: a row an image and draw.
        labels: of the images, [B].
        number: draws of each image.
    """
    held, rejected, pred = (
        draws[name].to_numpy().reshape(len(labels), number) for name in ("held_out", "rejected", "pred")
    )
    right = (pred == labels[:, None]) & ~rejected
    chosen = ~held if (~held).any() else held
    return {
        "correct": (right & held).sum(1),
        "draws": held.sum(1),
        "correct_sel": (right & chosen).sum(1),
        "draws_sel": chosen.sum(1),
        "rejected": (rejected & held).sum(1),
    }
