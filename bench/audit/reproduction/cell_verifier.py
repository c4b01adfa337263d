"""Judge the stored images of a cell again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from bench.analysis.verdict_agreement import compare
from bench.audit.reproduction.rebuild import Rebuilt, rebuild_cell, rebuild_defense
from bench.audit.reproduction.report import Verification, VerificationRow
from bench.evaluation.batching import draws_for_batch
from bench.evaluation.model_checks import check_model
from bench.execution.attack_and_judge import execute
from bench.execution.records import Block, block_at
from bench.spec.cell import Cell
from bench.store.arrays import read_images
from bench.store.parts import DRAWS, RECORDS, CellRecord
from defenses.core.defense import Defense
from defenses.core.detector import guard_of
from defenses.data.dataset import Dataset, load_dataset
from defenses.utils.devices import device_named
from defenses.utils.errors import UserError


@dataclass(frozen=True)
class VerifyOptions:
    """Selection and environment of a verification.

    Args:
        defenses: labels; empty: all.
        sample: largest number of judged images of a cell; None: all. A stochastic user-defined module draws for whole
            blocks, so all its images are judged.
        code: folder of user-defined defenses; None: the current folder.
        device: where models run.
        weights_root: folder where weights are looked for first.
        data_root: folder of data sets.
    """

    defenses: tuple[str, ...] = ()
    sample: int | None = None
    code: Path | None = None
    device: str = "cpu"
    weights_root: Path | None = None
    data_root: Path | None = None


class _CannotVerify(Exception):
    """Error: a cell cannot be judged; the text is a finding."""


@dataclass
class CellVerifier:
    """A verifier of cells, which loads defenses and data once.

    Args:
        options: of the verification.
        result: gets findings and the number of cells that cannot be judged.
        threads: of torch.
    """

    options: VerifyOptions
    result: Verification
    threads: int = 1
    _defenses: dict[str, Rebuilt] = field(default_factory=dict)
    _data: dict[tuple[str, str], Dataset | None] = field(default_factory=dict)
    _tables: dict[Path, tuple[pd.DataFrame, Callable[[str], pd.DataFrame]]] = field(default_factory=dict)

    def verify(self, line: CellRecord, part: Path, row: VerificationRow) -> None:
        """Judge a cell again and count it in its row, or add a finding why it cannot be judged.

        Args:
            line: of the cell.
            part: folder of its records.
            row: of its attack, view, defense and threat.
        """
        torch.set_num_threads(self.threads)
        try:
            self._verify(line, part, row)
        except _CannotVerify as reason:
            self.result.unjudged += 1
            self._add_finding(str(reason))
        except FileNotFoundError:
            self.result.unjudged += 1
            self._add_finding(f"{part.name} moved while it was read; repeat the command")

    def _verify(self, line: CellRecord, part: Path, row: VerificationRow) -> None:
        """Judge a cell again and count it in its row.

        Raises:
            _CannotVerify: a damaged line, a missing defense or data set, other data, or no images.
        """
        cell = rebuild_cell(line)
        if cell is None:
            raise _CannotVerify(f"{row.name[0]}: cell {line['key']} is not what its key was made of")
        defense, data = self._defense(cell, line), self._dataset(cell, line)
        if defense is None or data is None:
            raise _CannotVerify
        records, draws = self._read_part(part)
        before = records[records["cell"] == line["key"]]
        x_adv = read_images(part, line["key"])
        if x_adv is None or len(before) != len(x_adv):
            raise _CannotVerify(f"{part.name} has no images for {' | '.join(row.name)}")
        before = before.reset_index(drop=True)
        sample = self._sample(defense, before["index"].tolist())
        before, x_adv = before.iloc[sample], x_adv[sample]
        block = self._block(cell, data, before)
        result = execute(cell, defense, block, data.num_classes, x_adv=torch.from_numpy(x_adv))
        if not result.records:
            raise _CannotVerify(f"{' | '.join(row.name)}: {result.line['error']}")
        after = pa.table(result.draws).to_pandas()
        guard = guard_of(defense)
        row.add(compare(before, pd.DataFrame(result.records), draws(line["key"]), after, guard=guard))

    def _add_finding(self, text: str) -> None:
        """Add a finding once; an empty one not at all."""
        if text and text not in self.result.findings:
            self.result.findings.append(text)

    def _defense(self, cell: Cell, line: CellRecord) -> Defense | None:
        """Return the rebuilt defense of a cell; None if it cannot be rebuilt."""
        fingerprint = json.dumps(cell.defense.fingerprint, sort_keys=True)
        if fingerprint not in self._defenses:
            rebuilt = rebuild_defense(
                cell.defense.fingerprint,
                line["dataset"],
                weights_root=self.options.weights_root,
                data_root=self.options.data_root,
                code=self.options.code,
            )
            self._defenses[fingerprint] = rebuilt
            label = cell.defense.label
            if rebuilt.defense is None:
                self._add_finding(f"{label} cannot be rebuilt: {rebuilt.problem}")
            else:
                rebuilt.defense.to(device_named(self.options.device))
                rebuilt = self._checked(rebuilt, cell, line)
            if rebuilt.changes and label not in self.result.changed:
                self.result.changed.append(label)
            for change in rebuilt.changes:
                self._add_finding(f"{label} is not the defense that was judged: {change}")
        return self._defenses[fingerprint].defense

    def _checked(self, rebuilt: Rebuilt, cell: Cell, line: CellRecord) -> Rebuilt:
        """Return the rebuilt defense, without the model if it fails the checks of a run."""
        data = self._dataset(cell, line)
        if rebuilt.defense is None or data is None:
            return rebuilt
        try:
            check_model(rebuilt.defense, data.first(8), data.num_classes, cell.defense.label, probabilities=True)
        except UserError as error:
            self._add_finding(f"{cell.defense.label} cannot be judged: {error}")
            return replace(rebuilt, defense=None)
        return rebuilt

    def _dataset(self, cell: Cell, line: CellRecord) -> Dataset | None:
        """Return the data set of a cell; None if it cannot be loaded."""
        key = (line["dataset"], line["split"])
        if key not in self._data:
            try:
                self._data[key] = load_dataset(*key, root=self.options.data_root)
            except UserError as error:
                self._data[key] = None
                self._add_finding(f"the data set cannot be loaded: {error}")
        data = self._data[key]
        if data is not None and data.revision != cell.data.revision:
            self._add_finding(f"{key[0]} {key[1]}: revision {cell.data.revision} then, {data.revision} now")
        return data

    def _block(self, cell: Cell, data: Dataset, before: pd.DataFrame) -> Block:
        """Return today's images at the positions of a cell.

        Raises:
            _CannotVerify: the data set is too small.
        """
        positions = [int(i) for i in before["index"]]
        title = f"{cell.data.name} {cell.data.split}"
        if not positions or max(positions) >= len(data):
            raise _CannotVerify(f"{title} has {len(data)} images now; image {max(positions, default=0)} was judged")
        block = block_at(data, positions)
        for i, sha, then in zip(positions, block.shas, before["sha"], strict=True):
            if sha[:16] != then:
                self._add_finding(f"{title}: image {i} or its label is not the one that was judged")
        return block

    def _read_part(self, part: Path) -> tuple[pd.DataFrame, Callable[[str], pd.DataFrame]]:
        """Return (the records of a part, a function from a cell's key to its draws); the last part is cached."""
        if part not in self._tables:
            self._tables.clear()
            records = pq.ParquetFile(part / RECORDS).read().to_pandas()
            table = pq.ParquetFile(part / DRAWS).read()
            keys = table["cell"].cast(pa.string())

            def draws(key: str) -> pd.DataFrame:
                rows: pd.DataFrame = table.filter(pc.equal(keys, key)).to_pandas()
                return rows

            self._tables[part] = records, draws
        return self._tables[part]

    def _sample(self, defense: Defense, indices: list[int]) -> list[int]:
        """Return the rows to judge, in their order; the same images for all attacks."""
        n = self.options.sample
        if n is None or draws_for_batch(defense):
            return list(range(len(indices)))
        order = sorted(range(len(indices)), key=lambda r: hashlib.sha256(f"verify {indices[r]}".encode()).digest())
        return sorted(order[:n])
