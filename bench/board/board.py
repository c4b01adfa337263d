"""A board: a data set, threat models, defenses and attacks, which expand into cells. Nothing here imports torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

from bench.attacks.registry import find_attack
from bench.board.attack_entry import AttackEntry
from bench.board.indices import resolve
from bench.board.presets import Preset, check_defenses
from bench.board.schema import check
from bench.board.views import check_label, check_nulls, refuse_same, transfer_to, view_for
from bench.spec.aggregation import Aggregation
from bench.spec.cell import KNOWN, NULLS, SCHEMA, TRANSFER, AttackRef, Cell, DataRef, DefenseRef, VerdictSpec, label_of
from bench.spec.compute import Compute
from bench.spec.threat import ThreatModel
from bench.spec.view import ViewSpec
from defenses.data.dataset import DatasetInfo, dataset_info, labels_of
from defenses.data.sources.base import split_name
from defenses.utils.errors import UserError, unknown
from defenses.utils.json_values import Json, JsonView
from defenses.utils.parameters import decode

_OF_MINIMISATION = "searches for another boundary than that of the verdict, which is in float32; search in float32"


class BoardImages(NamedTuple):
    """The images of a board.

    Args:
        board: its name, for messages.
        dataset: name or .npz path.
        split: split of the data set.
        indices: named index list.
        root: where data sets lie; None: `defenses.utils.paths.data_root`.
    """

    board: str
    dataset: str
    split: str
    indices: str
    root: Path | None


@dataclass(frozen=True)
class Board:
    """A board.

    Args:
        name: name of the results folder.
        title: title of the tables.
        dataset: name or .npz path.
        threats: threat models, one per eps.
        defenses: defenses, in table order.
        attacks: attacks, in table order.
        split: split of the data set.
        indices: named index list.
        block: images of a cell; an attack sees a block as one batch, so it is part of the result.
        verdict: numbers of draws.
        seed: seed of attacks and draws.
        threads: torch threads of every worker.
        time_limit: seconds that a cell may take, not part of its key; None: no limit.
        budget: "full" or "reduced", shown in tables.
        data_root: where data sets lie; None: `defenses.utils.paths.data_root`.
        nulls: null attacks: "none" and "uniform", which are on every board, and optionally "transfer".
        protocols: aggregations of the draws.
        preset: the published protocol that the board follows; None: none.
        presets: the published protocols that some of its attacks are of.
        named: the name is the board's own; False: it is that of its file, which may be renamed.
        notes: on its data, for the manifest and below the tables.
        compute: arithmetic of the search of attacks that query a defense.

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
    presets: tuple[Preset, ...] = ()
    named: bool = True
    notes: tuple[str, ...] = ()
    compute: Compute = field(default_factory=Compute)

    def __post_init__(self) -> None:
        object.__setattr__(self, "split", split_name(self.split))
        numbers = {key: getattr(self, key) for key in ("block", "threads", "seed")}
        check("board", numbers, partial=True)
        check("verdict", {k: v for k, v in dataclasses.asdict(self.verdict).items() if v is not None})
        names = {
            "defense label": _labels(self.defenses),
            "attack label": [*(self.nulls if TRANSFER in self.nulls else ()), *(a.label for a in self.attacks)],
            "threat": list(map(str, self.threats)),
        }
        for kind, values in names.items():
            _check_unique(kind, values)
        for label in names["defense label"]:
            if label_of(label) != label:
                raise UserError(
                    f'the defense label "{label}" reads as that of one of several trainings; choose another'
                )
        for entry in self.attacks:
            check_label(entry.name, entry.label)
        check_nulls(self.nulls)
        if any(d.stochastic for d in self.defenses):
            self.protocols.check(self.verdict.draws)
        if self.preset:
            check_defenses(self.preset, [d.label for d in self.defenses if d.stochastic])

    @property
    def images(self) -> BoardImages:
        """Return the images of the board."""
        return BoardImages(self.name, self.dataset, self.split, self.indices, self.data_root)

    def keys(self) -> list[str] | None:
        """Return the keys of all cells, which identify a board without a name of its own; None for one with a name."""
        return None if self.named else [cell.key for cell in self.cells()]

    def with_compute(self, changes: JsonView) -> Board:
        """Return the board with another arithmetic, under a name that says it, as quickstart-bf16.

        Args:
            changes: keys of `Compute` with their values; the others stay.
        """
        compute = dataclasses.replace(self.compute, **changes)
        if compute == self.compute:
            return self
        words = compute.label.split(", ") if compute.label else ["float32"]
        return dataclasses.replace(self, compute=compute, name="-".join((self.name, *words)), named=True)

    def manifest_facts(self) -> Json:
        """Return the facts of the board for a manifest."""
        optional: dict[str, object] = {
            "preset": self.preset.as_dict() if self.preset else {},
            "presets": [preset.as_dict() for preset in self.presets],
            "notes": list(self.notes),
        }
        optional["protocols"] = self.protocols.as_dict()
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
            **{key: value for key, value in optional.items() if value},
        }

    def cells(self) -> list[Cell]:
        """Return all cells, in table order, each once.

        Raises:
            UserError: unknown attack or parameter, indices out of range, two labels for one defense or attack.
        """
        return list(self._cells)

    @cached_property
    def _cells(self) -> Collection[Cell]:
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
        return cells.values()

    def _entries(self, defense: DefenseRef) -> Iterable[AttackEntry]:
        """Return the null attacks on a defense, also on the known draw where an attack knows it, then its attacks."""
        attacks = [entry for entry in self.attacks if entry.meets(defense)]
        yield from (AttackEntry(name, name) for name in NULLS)
        if defense.stochastic and any(view.known for entry in attacks for view in entry.views):
            yield from (AttackEntry(name, f"{name}{KNOWN}", views=(ViewSpec(seed="known"),)) for name in NULLS)
        if TRANSFER in self.nulls and (transfer := transfer_to(defense, self.defenses)):
            yield AttackEntry(**transfer)
        yield from attacks

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
        of_random = attack.stochastic_warnings if defense.stochastic else ()
        of_search = (_OF_MINIMISATION,) if attack.minimisation and self.compute.precision != "float32" else ()
        warnings = (*attack.warnings, *attack.notes(threat, num_classes, params), *of_random, *of_search)
        reference = AttackRef(
            *(entry.label, entry.name, entry.params, attack.version, attack.minimisation, warnings, attack.copies)
        )
        single, surrogate = VerdictSpec(1, 0, self.verdict.batch), entry.surrogate
        compute = self.compute if reference.queries_model else Compute()
        several = dataclasses.replace(self.verdict, sequential=self.protocols.rule)
        views = entry.views if surrogate else (view_for(defense, v, reference) for v in entry.views)
        for view in dict.fromkeys(views):
            verdict = several if defense.stochastic and not view.known else single
            for data in blocks:
                rest = self.seed, self.budget, surrogate, compute
                yield Cell(defense, reference, data, threat, view, verdict, *rest, source_view=entry.source_view)


def _blocks(info: DatasetInfo, split: str, indices: str, block: int, root: Path | None) -> Iterable[DataRef]:
    if split not in info.splits:
        raise unknown(f"split of {info.name}", split, info.splits)
    labels = partial(labels_of, info.name, split, root=root)
    chosen = resolve(indices, info.splits[split], dataset=info.name, split=split, labels=labels)
    n = len(chosen.positions)
    for start in range(0, n, block):
        yield DataRef(info.name, split, info.revision, chosen.name, chosen.hash, start, min(n, start + block))


def _labels(defenses: Iterable[DefenseRef]) -> list[str]:
    """Return the labels of all defenses; trainings of one defense share a label, which comes once."""
    trainings: dict[tuple[str, str, str], set[int]] = {}
    labels = []
    for d in defenses:
        seeds = trainings.setdefault((d.label, d.name, repr(d.params)), set())
        if d.training_seed is None or d.training_seed in seeds or not seeds:
            labels.append(d.label)
        seeds.update(() if d.training_seed is None else {d.training_seed})
    return labels


def _check_unique(kind: str, names: list[str]) -> None:
    if not names:
        raise UserError(f"there is no {kind.partition(' ')[0]}; name at least one")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f'the {kind} "{name}" occurs twice; give each a label of its own')
