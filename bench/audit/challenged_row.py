"""A row of a results folder against which images are given: its clean cells, defense and data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from bench.analysis.results import CLEAN, load_results
from bench.audit.reproduction.rebuild import rebuild_cell, rebuild_defense
from bench.spec.cell import GIVEN, PRECOMPUTED, AttackRef, Cell
from bench.spec.threat import ThreatModel
from bench.store.folder import CellResult
from bench.store.manifest import read_manifest
from bench.store.parts import CellRecord
from bench.store.reader import read_folder
from defenses.utils.errors import UserError, unknown

if TYPE_CHECKING:
    import pandas as pd

    from bench.attacks.precomputed_files import PrecomputedImages
    from defenses.core.defense import Defense
    from defenses.data.dataset import Dataset

_ORDER = "give the images of the board in its order, or name them by an array index"


@dataclass(frozen=True)
class Roots:
    """Folders from which a defense is rebuilt.

    Args:
        code: folder of user-defined defenses and parts; None: the current folder.
        weights: folder where weights are looked for first.
        data: folder of data sets.
    """

    code: Path | None = None
    weights: Path | None = None
    data: Path | None = None


@dataclass(frozen=True, eq=False)
class ChallengedRow:
    """A defense under one threat in a results folder.

    Args:
        folder: the results folder.
        defense: its label.
        norm: of the threat.
        eps: of the threat, as in the plan.
        lines: of its finished clean cells, in order; the planned columns stand in them.
        planned: number of images.
        device: where the defense runs.
        roots: where it is rebuilt from.
    """

    folder: Path
    defense: str
    norm: str
    eps: str
    lines: tuple[CellRecord, ...]
    planned: int
    device: str = "cpu"
    roots: Roots = Roots()

    @property
    def threat(self) -> str:
        """Return norm and eps as text."""
        return f"{self.norm} {self.eps}"

    def is_of(self, line: Mapping[str, Any]) -> bool:
        """Return True if a line of a plan has the threat of the row."""
        return bool(line["norm"] == self.norm and line["eps"] == self.eps)

    def selects(self, frame: pd.DataFrame) -> pd.Series[Any]:
        """Return True for the rows of a frame that have the threat of the row."""
        return (frame["norm"] == self.norm) & (frame["eps"] == self.eps)

    @property
    def threads(self) -> int:
        """Return the torch threads under which the row was judged."""
        made = {line.get("run") for line in self.lines}
        runs = [run for run in read_manifest(self.folder).get("runs", []) if run["id"] in made]
        return max((run.get("threads") or 1 for run in runs), default=1)

    @cached_property
    def index(self) -> dict[str, list[int]]:
        """Positions in the data set of the images of each clean cell, in their order."""
        frame = load_results(self.folder)
        rows = frame[frame["cell"].isin([line["key"] for line in self.lines])]
        return {str(key): [int(i) for i in of["image"]] for key, of in rows.groupby("cell", sort=False)}

    def judged(self, images: Path, label: str) -> list[CellResult]:
        """Return the results of the row's cells with given images.

        Args:
            images: their file.
            label: of the images.

        Raises:
            UserError: see `bench.audit.challenge.challenge`.
        """
        import torch

        from bench.execution.attack_and_judge import execute
        from defenses.utils.devices import device_named

        torch.set_num_threads(self.threads)
        cells = [self._cell(line) for line in self.lines]
        data = self._data(cells[0])
        given = self._read(images, data)
        blocks = list(self._blocks(cells, data, given, images))
        defense = self._rebuilt(cells[0]).to(device_named(self.device))
        version = _version(given, [i for line in self.lines for i in self.index[line["key"]]])
        attack = AttackRef(label, f"{PRECOMPUTED}{images.name}", {}, version)
        results = []
        for line, cell, (block, x_adv) in zip(self.lines, cells, blocks, strict=True):
            of_given = replace(cell, attack=attack)
            result = execute(of_given, defense, block, data.num_classes, x_adv=torch.from_numpy(x_adv))
            if not result.records or result.line["error"]:
                raise UserError(f"the images cannot be judged on {self.defense}: {result.line['error']}")
            named = {"key": of_given.key, "attack": label, "view": GIVEN, "warnings": [], "minimisation": False}
            planned = {k: v for k, v in line.items() if k in of_given.columns() or k == "training_seed"}
            result.line |= cast("CellRecord", {**planned, **named})
            results.append(result)
        return results

    def _cell(self, line: CellRecord) -> Cell:
        cell = rebuild_cell(line)
        if cell is None:
            raise UserError(f"{self.defense}: cell {line['key']} is not what its key was made of")
        return cell

    def _rebuilt(self, cell: Cell) -> Defense:
        """Return the defense as it was judged."""
        roots = {"weights_root": self.roots.weights, "data_root": self.roots.data, "code": self.roots.code}
        rebuilt = rebuild_defense(cell.defense.fingerprint, self.lines[0]["dataset"], **roots)
        if rebuilt.defense is None:
            raise UserError(f"{self.defense} cannot be rebuilt: {rebuilt.problem}")
        if rebuilt.changes:
            raise UserError(f"{self.defense} is not the defense that was judged: {'; '.join(rebuilt.changes)}")
        return rebuilt.defense

    def _data(self, cell: Cell) -> Dataset:
        """Return the data set, in the version on which the row was judged."""
        from defenses.data.dataset import load_dataset

        line = self.lines[0]
        data = load_dataset(line["dataset"], line["split"], root=self.roots.data)
        if data.revision != cell.data.revision:
            raise UserError(
                f"{line['dataset']} {line['split']}: revision {cell.data.revision} then, {data.revision} now"
            )
        return data

    def _read(self, path: Path, data: Dataset) -> PrecomputedImages:
        """Return the images of a file, with the position of each."""
        from bench.attacks.precomputed_files import read_precomputed

        found = read_precomputed(path, self.threat)
        if len(found) > 1:
            raise UserError(f"{path} holds the images of {len(found)} attacks; give those of one")
        (given,) = found
        board = [i for line in self.lines for i in self.index[line["key"]]]
        if given.x.shape[1:] != data.shape:
            has, wants = ("x".join(map(str, shape)) for shape in (given.x.shape[1:], data.shape))
            raise UserError(f"{path} has images of {has}; those of the board are {wants}")
        if len(given.x) != len(board):
            raise UserError(f"{path} holds {len(given.x)} images; the board has {len(board)}: {_ORDER}")
        index = np.array(board, np.int64) if given.index is None else given.index
        if missing := sorted({*board} - {*index.tolist()}):
            raise UserError(f"{path} lacks image {missing[0]} of the board: {_ORDER}")
        if given.y is not None:
            labels = data.y[index].numpy()
            if len(wrong := np.flatnonzero(given.y != labels)):
                at = int(wrong[0])
                told = f"y of image {at} is {given.y[at]}, and image {index[at]} of the board is a {labels[at]}"
                raise UserError(f"{path}: {told}: {_ORDER}")
        return replace(given, index=index)

    def _blocks(
        self, cells: list[Cell], data: Dataset, given: PrecomputedImages, path: Path
    ) -> Iterator[tuple[Any, np.ndarray]]:
        """Yield the clean images of each cell, and the given ones; refuse those outside the ball."""
        import torch

        from bench.execution.records import block_at
        from bench.spec.threat import distances

        assert given.index is not None
        rows = {int(i): row for row, i in enumerate(given.index)}
        threat: ThreatModel = cells[0].threat
        for line in self.lines:
            positions = self.index[line["key"]]
            block = block_at(data, positions)
            x_adv = np.ascontiguousarray(given.x[[rows[i] for i in positions]])
            size = distances(block.x, torch.from_numpy(x_adv))[threat.norm]
            if len(outside := torch.nonzero(size > float(threat.eps) + threat.tolerance).flatten()):
                first = int(outside[0])
                where = f"image {rows[positions[first]]} of {path}"
                raise UserError(
                    f"{where} lies {float(size[first]):g} from image {positions[first]} of {line['dataset']} in "
                    f"{threat.norm}, outside the ball of {threat.eps}: {_ORDER}"
                )
            yield block, x_adv


def _version(given: PrecomputedImages, board: list[int]) -> str:
    """Return the version of given images in keys, as of `purebench judge`: a hash of them in the order of the board."""
    from safetensors.numpy import save

    assert given.index is not None
    rows = {int(i): row for row, i in enumerate(given.index)}
    x = np.ascontiguousarray(given.x[[rows[i] for i in board]])
    content = save({"index": np.array(board, np.int64), "x_adv": x})
    return f"sha256 {hashlib.sha256(content).hexdigest()[:32]}"


def challenged_row(
    folder: Path, defense: str, norm: str | None = None, eps: str | None = None, *, device: str = "cpu", roots: Roots
) -> ChallengedRow:
    """Return the row of a defense, whose clean images were judged.

    Args:
        folder: the results folder.
        defense: label.
        norm: of the threat; None: any.
        eps: of the threat, as "1/5"; None: any.
        device: where the defense runs.
        roots: where it is rebuilt from.

    Raises:
        UserError: no results, an unknown label, several threats or trainings, or clean images without verdicts.
    """
    lines: list[CellRecord] = read_folder(folder, lambda found, _: found)
    labels = dict.fromkeys(line["defense"] for line in lines)
    if defense not in labels:
        raise unknown("defense in these results", defense, labels)
    of = [x for x in lines if x["defense"] == defense and x["attack"] == CLEAN and not x.get("seed_known")]
    wanted = None if eps is None else _threat(norm or "Linf", eps)
    threats = {
        (x["norm"], x["eps"]): None
        for x in of
        if norm in (None, x["norm"]) and wanted in (None, _threat(x["norm"], x["eps"]))
    }
    known = ", ".join(dict.fromkeys(f"{x['norm']} {x['eps']}" for x in of))
    if len(threats) != 1:
        raise UserError(f"{defense} was judged at {known}; name one of them by --norm and --eps")
    ((found_norm, found_eps),) = threats
    row = [x for x in of if (x["norm"], x["eps"]) == (found_norm, found_eps)]
    if len({x.get("training_seed") for x in row}) > 1:
        raise UserError(f"{defense} has several trainings, so that images are no challenge to all; give results of one")
    if missing := [x for x in row if x["status"] != "ok"]:
        raise UserError(
            f"{folder} has no verdicts on the clean images of {len(missing)} cells of {defense}; run its board"
        )
    planned = sum(x["images"] for x in row)
    return ChallengedRow(folder, defense, found_norm, found_eps, tuple(row), planned, device, roots)


def _threat(norm: Any, eps: Any) -> str:
    """Return a threat as text, its radius in lowest terms."""
    return str(ThreatModel(norm, eps))
