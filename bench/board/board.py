"""Boards: TOML files that say what is run. A board expands into cells; nothing here imports torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bench.attacks.registry import find_attack
from bench.board.attack_entry import AttackEntry
from bench.board.indices import resolve
from bench.board.presets import Preset, check_defenses
from bench.board.schema import check
from bench.board.views import check_label, check_nulls, refuse_same, transfer_to, view_for
from bench.spec.aggregation import Aggregation
from bench.spec.cell import KNOWN, NULLS, SCHEMA, TRANSFER, AttackRef, Cell, DataRef, DefenseRef, VerdictSpec
from bench.spec.threat import ThreatModel
from bench.spec.view import ViewSpec
from defenses.data.dataset import DatasetInfo, dataset_info, labels_of
from defenses.utils.errors import UserError, unknown
from defenses.utils.parameters import decode


@dataclass(frozen=True)
class Board:
    """What is run and how it is judged.

    Args:
        name: of the results folder.
        title: for the table.
        dataset: name or .npz path.
        threats: one per eps.
        defenses: in table order.
        attacks: in table order.
        split: of the data set.
        indices: named index list.
        block: images per unit of work; attacks see one block as one batch, so it is part of the result.
        verdict: draws.
        seed: of everything.
        threads: torch threads of every worker.
        time_limit: seconds that a cell may take; no part of its key.
        budget: "full" or "reduced", shown in tables.
        data_root: where data sets lie; None: where `defenses.utils.paths.data_root` says.
        nulls: null attacks; "none" and "uniform" are on every board, "transfer" may be.
        protocols: what the draws are combined to.
        preset: the published protocol that the board follows.

    Raises:
        UserError: no threat, defense or attack, a label twice or reserved, a number out of range.
    """

    name: str
    title: str
    dataset: str
    threats: tuple[ThreatModel, ...]
    defenses: tuple[DefenseRef, ...]
    attacks: tuple[AttackEntry, ...]
    split: str = "test"
    indices: str = "all"
    block: int = 100
    verdict: VerdictSpec = field(default_factory=VerdictSpec)
    seed: int = 0
    threads: int = 1
    time_limit: float | None = None
    budget: str = "full"
    data_root: Path | None = None
    nulls: tuple[str, ...] = NULLS
    protocols: Aggregation = field(default_factory=Aggregation)
    preset: Preset | None = None

    def __post_init__(self) -> None:
        numbers = {key: getattr(self, key) for key in ("block", "threads", "seed")}
        check("board", numbers)
        check("verdict", {k: v for k, v in dataclasses.asdict(self.verdict).items() if v is not None})
        names = {
            "defense label": _labels(self.defenses),
            "attack label": [*(self.nulls if TRANSFER in self.nulls else ()), *(a.label for a in self.attacks)],
            "threat": list(map(str, self.threats)),
        }
        for what, given in names.items():
            _unique(what, given)
        for entry in self.attacks:
            check_label(entry.name, entry.label)
        check_nulls(self.nulls)
        if any(d.stochastic for d in self.defenses):
            self.protocols.check(self.verdict.draws)
        if self.preset:
            check_defenses(self.preset, [d.label for d in self.defenses if d.stochastic])

    def manifest_facts(self) -> dict[str, Any]:
        """Return what a manifest states of the board."""
        rare = {"preset": self.preset.as_dict() if self.preset else {}, "protocols": self.protocols.as_dict()}
        return {
            "schema": SCHEMA,
            "board": self.name,
            "title": self.title,
            "dataset": self.dataset,
            "split": self.split,
            "indices": self.indices,
            "seed": self.seed,
            "budget": self.budget,
            "defenses": {d.title: dict(d.fingerprint) for d in self.defenses},
            **{key: value for key, value in rare.items() if value},
        }

    def cells(self) -> list[Cell]:
        """All cells, in table order, each once.

        Raises:
            UserError: an attack or parameter that does not exist, indices out of range, two labels for one thing.
        """
        info = dataset_info(self.dataset, root=self.data_root)
        blocks = tuple(_blocks(info, self.split, self.indices, self.block, self.data_root))
        cells: dict[str, Cell] = {}
        for threat in self.threats:
            for defense in self.defenses:
                for entry in self._entries(defense):
                    for cell in self._pair(info.num_classes, blocks, threat, defense, entry):
                        if cell.key in cells:
                            refuse_same(cell, cells[cell.key])
                        cells[cell.key] = cell
        return list(cells.values())

    def _entries(self, defense: DefenseRef) -> Iterable[AttackEntry]:
        """The null attacks on a defense, on a draw that an attack knows too, then the attacks."""
        own = [entry for entry in self.attacks if entry.meets(defense)]
        yield from (AttackEntry(name, name) for name in NULLS)
        if defense.stochastic and any(view.known for entry in own for view in entry.views):
            yield from (AttackEntry(name, f"{name}{KNOWN}", views=(ViewSpec(seed="known"),)) for name in NULLS)
        if TRANSFER in self.nulls and (found := transfer_to(defense, self.defenses)):
            yield AttackEntry(**found)
        yield from own

    def _pair(
        self,
        num_classes: int,
        blocks: tuple[DataRef, ...],
        threat: ThreatModel,
        defense: DefenseRef,
        entry: AttackEntry,
    ) -> Iterable[Cell]:
        params = decode(entry.params)
        attack = find_attack(entry.name, params)
        warnings = (*attack.warnings, *attack.notes(threat, num_classes, params))
        reference = AttackRef(
            *(entry.label, entry.name, entry.params, attack.version, attack.minimisation, warnings, attack.copies)
        )
        once, surrogate = VerdictSpec(1, 0, self.verdict.batch), entry.surrogate
        drawn = dataclasses.replace(self.verdict, sequential=self.protocols.rule)
        looks = entry.views if surrogate else (view_for(defense, v, entry.name) for v in entry.views)
        for view in dict.fromkeys(looks):
            verdict = drawn if defense.stochastic and not view.known else once
            for data in blocks:
                yield Cell(defense, reference, data, threat, view, verdict, self.seed, self.budget, surrogate)


def _blocks(info: DatasetInfo, split: str, indices: str, block: int, root: Path | None) -> Iterable[DataRef]:
    if split not in info.splits:
        raise unknown(f"split of {info.name}", split, info.splits)
    labels = partial(labels_of, info.name, split, root=root)
    chosen = resolve(indices, info.splits[split], dataset=info.name, split=split, labels=labels)
    n = len(chosen.positions)
    for start in range(0, n, block):
        yield DataRef(info.name, split, info.revision, chosen.name, chosen.hash, start, min(n, start + block))


def _labels(defenses: Iterable[DefenseRef]) -> list[str]:
    """The labels, of which trainings of one defense share theirs."""
    alike: dict[tuple[str, str, str], set[int]] = {}
    labels = []
    for d in defenses:
        known = alike.setdefault((d.label, d.name, repr(d.given)), set())
        if d.training_seed is None or d.training_seed in known or not known:
            labels.append(d.label)
        known.update(() if d.training_seed is None else {d.training_seed})
    return labels


def _unique(what: str, names: list[str]) -> None:
    if not names:
        raise UserError(f"there is no {what.partition(' ')[0]}; name at least one")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f'the {what} "{name}" occurs twice; give each a label of its own')
