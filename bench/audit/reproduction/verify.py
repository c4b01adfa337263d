"""Judge the stored images of a results folder again, with today's code, weights and libraries; nothing is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.audit.reproduction.agreement import compare
from bench.audit.reproduction.rebuild import Rebuilt, rebuild_cell, rebuild_defense
from bench.audit.reproduction.report import Verification, VerificationRow
from bench.store.environment import versions
from bench.store.manifest import check_schema, read_manifest
from bench.store.parts import ADVERSARIAL, DRAWS, RECORDS, sha256, stored
from defenses.utils.errors import UserError, unknown

if TYPE_CHECKING:
    import pandas as pd

    from bench.execution.records import Block
    from bench.spec.cell import Cell
    from defenses.core.defense import Defense
    from defenses.data.dataset import Dataset

Line = Mapping[str, Any]


@dataclass(frozen=True)
class VerifyOptions:
    """What is verified, and with what.

    Args:
        defenses: labels; empty: all.
        sample: at most so many images of a cell; None: all. A random module of somebody's own, which draws for whole
            blocks, is judged on whole blocks all the same.
        code: where files of own defenses lie.
        device: where models run.
        weights_root: where weights are looked for first.
        data_root: where data sets lie.
    """

    defenses: tuple[str, ...] = ()
    sample: int | None = None
    code: Path | None = None
    device: str = "cpu"
    weights_root: Path | None = None
    data_root: Path | None = None


def verify(folder: Path, settings: VerifyOptions, progress: Callable[[str], None] = lambda _: None) -> Verification:
    """Judge stored images again.

    Args:
        folder: of results; it may be read-only.
        settings: what, and with what.
        progress: is told every row that is begun.

    Raises:
        UserError: no results there, of a newer version, or an unknown defense.
    """
    check_schema(folder)
    found = Verification(sample=settings.sample)
    plan, lines = _lines(folder, found)
    labels = list(dict.fromkeys(p["defense"] for p in plan))
    for label in settings.defenses:
        if label not in labels:
            raise unknown("defense in these results", label, labels)
    chosen = [p for p in plan if not settings.defenses or p["defense"] in settings.defenses]
    found.missing = sum(p["key"] not in lines for p in chosen)
    # Labels are not part of a key: the plan has the current ones.
    done: list[tuple[Line, Path]] = [
        ({**lines[p["key"]][0], **p}, lines[p["key"]][1]) for p in chosen if p["key"] in lines
    ]
    found.failed = sum(line["status"] != "ok" for line, _ in done)
    judge = _Verifier(settings, found)
    found.environment = _environment(folder, [line for line, _ in done], judge)
    rows: dict[tuple[str, str, str, str], list[tuple[Line, Path]]] = {}
    for line, part in done:
        if line["status"] == "ok":
            name = (line["defense"], line["attack"], line["view"], f"{line['norm']} {line['eps']}")
            rows.setdefault(name, []).append((line, part))
    for name, cells in rows.items():
        progress(" | ".join(name))
        row = VerificationRow(name)
        for line, part in cells:
            try:
                judge.cell(line, part, row)
            except FileNotFoundError:
                judge.cannot(f"{part.name} moved while it was read; repeat the command")
        if row.total.images:
            found.rows.append(row)
    return found


def _lines(folder: Path, found: Verification) -> tuple[list[Line], dict[str, tuple[dict[str, Any], Path]]]:
    """(the plan, the stored lines and their parts by key); what is damaged is told."""
    path = folder / "plan.jsonl"
    try:
        plan = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, RecursionError):
        plan = [None]
    if not all(isinstance(p, dict) and p.keys() >= {"key", "defense", "attack", "view", "norm", "eps"} for p in plan):
        raise UserError(f"{path} is damaged; run the board again, which writes it anew")
    manifest = read_manifest(folder)
    if not manifest:
        found.findings.append("manifest.json is missing or damaged: nothing is known of versions and threads")
    elif manifest.get("plan") and manifest["plan"] != sha256(path):
        found.findings.append("plan.jsonl is not the one that the manifest names")

    def damaged(part: Path, problem: str) -> None:
        found.findings.append(f"{part.name}: {problem}; its cells cannot be judged")

    return plan, stored(folder / "parts", damaged)


def _environment(folder: Path, lines: Iterable[Line], judge: _Verifier) -> list[str]:
    """Versions that differ between the runs that the lines are of and now; the judge takes over their threads."""
    ids = {line.get("run") for line in lines}
    runs = [run for run in read_manifest(folder).get("runs", []) if run["id"] in ids]
    judge.threads = max((run.get("threads") or 1 for run in runs), default=1)
    now, told = versions(), []
    before = {name for run in runs for name in run.get("versions", {})}
    for name in sorted(before):
        then = sorted({str(run["versions"].get(name)) for run in runs if run.get("versions")})
        if then != [str(now.get(name))]:
            told.append(f"{name} {' and '.join(then)} then, {now.get(name, 'not installed')} now")
    devices = sorted({str((run.get("hardware") or {}).get("device", "cpu")) for run in runs})
    if devices and devices != [judge.settings.device]:
        told.append(f"device {' and '.join(devices)} then, {judge.settings.device} now")
    return told


@dataclass
class _Verifier:
    """What judging cells takes, loaded once."""

    settings: VerifyOptions
    found: Verification
    threads: int = 1
    _defenses: dict[str, Rebuilt] = field(default_factory=dict)
    _data: dict[tuple[str, str], Dataset | None] = field(default_factory=dict)
    _tables: dict[Path, tuple[pd.DataFrame, Any]] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)

    def cell(self, line: Line, part: Path, row: VerificationRow) -> None:
        """Judge a cell again and count it in its row, or tell why it cannot be judged."""
        import torch

        torch.set_num_threads(self.threads)
        cell = rebuild_cell(line)
        if cell is None:
            return self.cannot(f"{row.name[0]}: cell {line['key']} is not what its key was made of")
        defense, data = self._defense(cell, line), self._dataset(cell, line)
        if defense is None or data is None:
            return self.cannot("")
        records, draws = self._table(part)
        before = records[records["cell"] == line["key"]]
        x_adv = _images(part, line["key"])
        if x_adv is None or len(before) != len(x_adv):
            return self.cannot(f"{part.name} has no images for {' | '.join(row.name)}")
        before = before.reset_index(drop=True)
        kept = self._sample(defense, before["index"].tolist())
        self._judge(cell, row, defense, data, before.iloc[kept], x_adv[kept], draws(line["key"]))
        return None

    def cannot(self, why: str) -> None:
        """Count a cell that cannot be judged, and tell why."""
        self.found.unjudged += 1
        self._tell(why)

    def _judge(
        self,
        cell: Cell,
        row: VerificationRow,
        defense: Defense,
        data: Dataset,
        before: pd.DataFrame,
        x_adv: Any,
        draws: Any,
    ) -> None:
        import pandas as pd
        import pyarrow as pa
        import torch

        from bench.execution.run_cell import execute
        from defenses.core.detector import guard_of

        block = self._block(cell, data, before)
        if block is None:
            return self.cannot("")
        result = execute(cell, defense, block, data.num_classes, made=torch.from_numpy(x_adv))
        if not result.records:
            return self.cannot(f"{' | '.join(row.name)}: {result.line['error']}")
        after = pa.table(result.draws).to_pandas()
        return row.add(compare(before, pd.DataFrame(result.records), draws, after, guard=guard_of(defense)))

    def _tell(self, text: str) -> None:
        if text and text not in self._told:
            self._told.add(text)
            self.found.findings.append(text)

    def _defense(self, cell: Cell, line: Line) -> Defense | None:
        """The defense of a cell, as it can be made today."""
        from bench.evaluation.devices import device_named

        said = json.dumps(cell.defense.fingerprint, sort_keys=True)
        if said not in self._defenses:
            made = rebuild_defense(
                cell.defense.fingerprint,
                line["dataset"],
                weights_root=self.settings.weights_root,
                data_root=self.settings.data_root,
                code=self.settings.code,
            )
            self._defenses[said] = made
            label = cell.defense.label
            if made.defense is None:
                self._tell(f"{label} cannot be rebuilt: {made.problem}")
            else:
                made.defense.to(device_named(self.settings.device))
            for change in made.changes:
                self._tell(f"{label} is not the defense that was judged: {change}")
        return self._defenses[said].defense

    def _dataset(self, cell: Cell, line: Line) -> Dataset | None:
        from defenses.data.dataset import load_dataset

        key = (line["dataset"], line["split"])
        if key not in self._data:
            try:
                self._data[key] = load_dataset(*key, root=self.settings.data_root)
            except UserError as error:
                self._data[key] = None
                self._tell(f"the data set cannot be loaded: {error}")
        data = self._data[key]
        if data is not None and data.revision != cell.data.revision:
            self._tell(f"{key[0]} {key[1]}: revision {cell.data.revision} then, {data.revision} now")
        return data

    def _block(self, cell: Cell, data: Dataset, before: pd.DataFrame) -> Block | None:
        """Today's images at the positions of a cell."""
        import torch

        from bench.execution.records import Block

        at = [int(i) for i in before["index"]]
        where = f"{cell.data.name} {cell.data.split}"
        if not at or max(at) >= len(data):
            self._tell(f"{where} has {len(data)} images now; image {max(at, default=0)} was judged")
            return None
        shas = tuple(data.sha(i) for i in at)
        for i, sha, then in zip(at, shas, before["sha"], strict=True):
            if sha[:16] != then:
                self._tell(f"{where}: image {i} or its label is not the one that was judged")
        index = torch.tensor(at, dtype=torch.int64)
        return Block(data.x[index], data.y[index], index, shas)

    def _table(self, part: Path) -> tuple[pd.DataFrame, Any]:
        """A part's records, and what gives the draws of one of its cells; one part is held at a time."""
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        if part not in self._tables:
            self._tables.clear()
            records = pq.ParquetFile(part / RECORDS).read().to_pandas()
            table = pq.ParquetFile(part / DRAWS).read()
            names = table["cell"].cast(pa.string())

            def draws(key: str) -> pd.DataFrame:
                chosen: pd.DataFrame = table.filter(pc.equal(names, key)).to_pandas()
                return chosen

            self._tables[part] = records, draws
        return self._tables[part]

    def _sample(self, defense: Defense, indices: list[int]) -> list[int]:
        """The rows to judge, in their order: for all attacks those of the same images."""
        from defenses.core.defense import Foreign

        n = self.settings.sample
        if n is None or (isinstance(defense, Foreign) and defense.stochastic):
            return list(range(len(indices)))
        order = sorted(range(len(indices)), key=lambda r: hashlib.sha256(f"verify {indices[r]}".encode()).digest())
        return sorted(order[:n])


def _images(part: Path, key: str) -> Any:
    """The stored adversarial images of a cell; None: there are none."""
    from safetensors import safe_open

    if not (part / ADVERSARIAL).is_file():
        return None
    with safe_open(str(part / ADVERSARIAL), framework="np") as images:
        return images.get_tensor(key) if key in images.keys() else None  # noqa: SIM118
