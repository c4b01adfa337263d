"""The images of an attack, clean and adversarial, from a results folder and the data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bench.store.arrays import read_images
from bench.store.kinds import folder_named
from bench.store.parts import ADVERSARIAL, DRAWS, RECORDS, CellRecord, opened
from bench.store.reader import Part, read_folder
from defenses.utils.arrays import F32, F64, I64
from defenses.utils.errors import UserError, unknown

if TYPE_CHECKING:
    from defenses.data.dataset import Dataset

_KEYS = ("dataset", "split", "norm", "eps", "training_seed")  # one value each, or the images are of several rows


@dataclass(frozen=True, eq=False)
class Images:
    """Images of one attack on one defense, with their verdicts.

    Args:
        clean: images of the data set, float32 [N, C, H, W] in [0, 1].
        adversarial: the same after the attack, float32 [N, C, H, W] in [0, 1].
        labels: right classes, int64 [N].
        predictions: class that most held-out draws give the adversarial image, int64 [N]; -1: refused, or no verdict.
            Where a minimisation attack ended outside the ball the clean image was judged, here and in `shares`.
        shares: share of held-out draws that give the right class, float64 [N] in [0, 1]; NaN: no verdict.
        index: dataset indices, int64 [N].
        sha: first 16 hex digits of `defenses.data.dataset.Dataset.sha` of the clean images, [N].
    """

    clean: F32
    adversarial: F32
    labels: I64
    predictions: I64
    shares: F64
    index: I64
    sha: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.index)


def load_images(
    results: str | Path,
    defense: str,
    attack: str,
    view: str | None = None,
    indices: Iterable[int] | None = None,
    *,
    norm: str | None = None,
    eps: str | None = None,
    training_seed: int | None = None,
    data_root: str | Path | None = None,
) -> Images:
    """Return the images of an attack on a defense: those of the data set, and the stored adversarial ones.

    Args:
        results: a results folder whose parts hold their arrays.
        defense: label.
        attack: label, as "autoattack:standard"; "none" and "uniform" too.
        view: of several views of the attack, its label or its gradient mode, as "bpda".
        indices: dataset indices, in the order of the result; None: all, ascending.
        norm: of several norms, which one, as "L2".
        eps: of several radii, which one, as in tables: "8/255".
        training_seed: of several trainings, which one.
        data_root: folder of data sets.

    Raises:
        UserError: no results there or a damaged file; an unknown defense, attack, view or index, or several that fit;
            no stored images; or the data set is missing, or not the one that was attacked.
    """
    from defenses.data.dataset import load_dataset

    wanted = {"norm": norm, "eps": eps, "training_seed": training_seed}
    folder = folder_named(results)
    lines, frame, adversarial = read_folder(
        folder, partial(_stored, folder=folder, row=(defense, attack, view), wanted=wanted)
    )
    rows = _rows(frame["index"].to_numpy(), indices, f"{defense}, {attack}")
    frame, adversarial = frame.iloc[rows], adversarial[rows]
    data = load_dataset(lines[0]["dataset"], lines[0]["split"], root=data_root)
    index = frame["index"].to_numpy(np.int64)
    return Images(
        _clean(data, index.tolist(), frame["sha"].tolist()),
        adversarial,
        frame["label"].to_numpy(np.int64),
        frame["prediction"].to_numpy(np.int64),
        frame["share"].to_numpy(np.float64),
        index,
        tuple(frame["sha"]),
    )


def _stored(
    lines: Sequence[CellRecord],
    parts: Sequence[Part],
    *,
    folder: Path,
    row: tuple[str, str, str | None],
    wanted: Mapping[str, Any],
) -> tuple[list[CellRecord], pd.DataFrame, F32]:
    """Return (lines of the cells of a row, their records with predictions, their adversarial images)."""
    chosen = _cells(lines, *row, wanted)
    finished = {at: line for at, line in chosen.items() if line["status"] == "ok"}
    title = ", ".join(filter(None, row))
    if not finished:
        line = next(iter(chosen.values()))
        raise UserError(f"{title} has no images ({line['error'] or line['status']}); run its cells first")
    frames, arrays = [], []
    for part in (part.only(frozenset(finished)) for part in parts):
        if not part.cells:
            continue
        if not (part.folder / ADVERSARIAL).is_file() and part.folder.is_dir():
            text = f"{folder} holds no images of {title}: parts/{part.folder.name} lacks {ADVERSARIAL}"
            raise UserError(f"{text}; copy it from where the board ran, or remove the part and run the board again")
        records = _records(part)
        for key, images in _arrays(part).items():
            frames.append(records[records["at"] == part.cells[key]])
            arrays.append(images.astype(np.float32))
    return list(finished.values()), pd.concat(frames, ignore_index=True), np.concatenate(arrays)


def _cells(
    lines: Sequence[CellRecord], defense: str, attack: str, view: str | None, wanted: Mapping[str, Any]
) -> dict[int, CellRecord]:
    """Return the lines of the cells of one row of the tables, by position.

    Raises:
        UserError: no row fits, or several.
    """
    cells: dict[int, CellRecord] = {
        at: {"training_seed": 0} | line for at, line in enumerate(lines) if line["defense"] == defense
    }
    if not cells:
        raise unknown("defense", defense, {line["defense"] for line in lines})
    attacked = {at: line for at, line in cells.items() if line["attack"] == attack}
    if not attacked:
        raise unknown(f"attack on {defense}", attack, {line["attack"] for line in cells.values()})
    views = list(dict.fromkeys(line["view"] for line in attacked.values()))
    fit = [v for v in views if view in (None, v)] or [v for v in views if v.partition(",")[0] == view]
    if not fit:
        raise unknown(f"view of {attack}", str(view), views)
    chosen = {at: line for at, line in attacked.items() if line["view"] in fit}
    for name, value in wanted.items():
        values = {line.get(name) for line in chosen.values()}
        if value is not None and value not in values:
            raise unknown(f"{name} of {attack}", str(value), map(str, values))
        chosen = {at: line for at, line in chosen.items() if value in (None, line.get(name))}
    for name in ("view", *_KEYS):
        found = list(dict.fromkeys(str(line.get(name)) for line in chosen.values()))
        if len(found) > 1:
            several = ", ".join(f'"{value}"' for value in found)
            raise UserError(f"{defense}, {attack} has several values of {name}; give one of {several}")
    return chosen


def _records(part: Part) -> pd.DataFrame:
    """Return the records of the cells of a part, with "prediction" and "share"; "at" is the position of the cell."""
    records = part.table(RECORDS, ("index", "sha", "label", "correct", "draws"))
    draws = part.table(DRAWS, ("index", "held_out", "pred", "rejected"))
    frame, votes = records.to_pandas(), draws.to_pandas()
    votes = votes[votes["held_out"].astype(bool)]
    votes = votes.assign(prediction=votes["pred"].where(~votes["rejected"].astype(bool), -1))
    counts = votes.groupby(["at", "index", "prediction"]).size().rename("n").reset_index()
    most = counts.sort_values("n", ascending=False, kind="stable").drop_duplicates(["at", "index"])
    frame = frame.merge(most[["at", "index", "prediction"]], on=["at", "index"], how="left")
    judged = frame["draws"].where(frame["draws"] > 0)
    with_votes: pd.DataFrame = frame.assign(prediction=frame["prediction"].fillna(-1), share=frame["correct"] / judged)
    return with_votes


def _arrays(part: Part) -> dict[str, Any]:
    """Return the stored adversarial images of the cells of a part by key.

    Raises:
        UserError: the file is damaged, or lacks those of a cell.
    """
    try:
        opened(part.folder, ADVERSARIAL).close()  # checks its checksum
        images = {key: read_images(part.folder, key) for key in part.cells}
    except ValueError:
        images = dict.fromkeys(part.cells)
    if any(array is None for array in images.values()):
        raise UserError(f"{part.folder / ADVERSARIAL} is damaged; run the board again, which redoes these cells")
    return images


def _rows(stored: I64, indices: Iterable[int] | None, title: str) -> I64:
    """Return the positions of the images of some indices, in their order; of all in ascending order."""
    if indices is None:
        return np.argsort(stored, kind="stable")
    at = {int(index): row for row, index in enumerate(stored)}
    asked = [int(index) for index in indices]
    for index in asked:
        if index not in at:
            raise UserError(f"{title} has no image {index}; it has {len(at)} from {min(at)} to {max(at)}")
    return np.array([at[index] for index in asked], np.int64)


def _clean(data: Dataset, indices: Sequence[int], shas: Sequence[str]) -> F32:
    """Return the images of a data set, float32 [N, C, H, W]; refuse one whose images are not those attacked."""
    from defenses.data.dataset import sha_of

    inside = [index for index in indices if index < len(data)]
    x, y = data.images(inside), data.y[inside]
    found = dict(zip(inside, map(sha_of, x, y), strict=True))
    for index, sha in zip(indices, shas, strict=True):
        if found.get(index, "")[:16] != sha:
            text = f"image {index} of {data.name} {data.split} is not the one that was attacked"
            raise UserError(f"{text}: the data set has changed; use the one of the run")
    images: F32 = x.numpy()
    return images
