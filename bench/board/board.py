"""Boards: TOML files that say what is run. A board expands into cells; nothing here imports torch."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bench.attacks.registry import find_attack
from bench.board.attack_entry import AttackEntry, attack_entry
from bench.board.indices import resolve
from bench.board.presets import Preset, check_defenses, with_preset
from bench.board.schema import check
from bench.board.views import KNOWN, TRANSFER, check_label, check_nulls, refuse_same, transfer_to, view_for
from bench.execution.workers.limits import duration
from bench.spec.aggregation import Protocols, protocols_of
from bench.spec.cell import NULLS, AttackRef, Cell, DataRef, DefenseRef, VerdictSpec
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
    protocols: Protocols = field(default_factory=Protocols)
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
        reference = AttackRef(entry.label, entry.name, entry.params, attack.version, attack.minimisation, warnings)
        once, source = VerdictSpec(1, 0, self.verdict.batch), entry.source
        drawn = dataclasses.replace(self.verdict, sequential=self.protocols.rule)
        looks = entry.views if source else (view_for(defense, v, entry.name) for v in entry.views)
        for view in dict.fromkeys(looks):
            verdict = drawn if defense.stochastic and not view.known else once
            for data in blocks:
                yield Cell(defense, reference, data, threat, view, verdict, self.seed, self.budget, source)


def _blocks(info: DatasetInfo, split: str, indices: str, block: int, root: Path | None) -> Iterable[DataRef]:
    if split not in info.splits:
        raise unknown(f"split of {info.name}", split, info.splits)
    labels = partial(labels_of, info.name, split, root=root)
    chosen = resolve(indices, info.splits[split], dataset=info.name, split=split, labels=labels)
    n = len(chosen.positions)
    for start in range(0, n, block):
        yield DataRef(info.name, split, info.revision, chosen.name, chosen.hash, start, min(n, start + block))


def load_board(
    path: str | Path, *, weights_root: str | Path | None = None, data_root: str | Path | None = None
) -> Board:
    """Read a board file.

    Args:
        path: a TOML file, or the name of a board that comes with purebench ("quickstart").
        weights_root: where weights are looked for first.
        data_root: where data sets lie; None: where `defenses.utils.paths.data_root` says.

    Raises:
        UserError: no such file, not TOML, unknown or missing key, unknown name, a value of the wrong kind or out of
            range.
    """
    file = find_board(path)
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # of numbers too long and lists too deep too
        raise UserError(f"{file} is not a TOML file: {error}") from None
    try:
        board = read_board(raw, file.stem, weights_root=weights_root, data_root=data_root)
        board.cells()  # finds names that only show when cells are made
        return board
    except RecursionError:
        raise UserError(f"{file} is nested too deeply") from None
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def find_board(path: str | Path) -> Path:
    """The file of a board given by path or by name.

    Raises:
        UserError: there is none.
    """
    import leaderboards

    own = Path(leaderboards.__file__).parent
    for candidate in (Path(path), own / Path(path).name, own / f"{path}.toml"):
        if candidate.is_file():
            return candidate
    raise unknown("board", str(path), [p.stem for p in own.glob("*.toml")])


def read_board(
    raw: dict[str, Any], stem: str, *, weights_root: str | Path | None = None, data_root: str | Path | None = None
) -> Board:
    """The board of a parsed TOML file; `load_board` has the arguments and what it raises.

    Args:
        raw: as TOML gives it.
        stem: its name, where it says none.
        weights_root: where weights are looked for first.
        data_root: where data sets lie.
    """
    from bench.board.defense_entry import describe

    if "training" in raw:
        raise UserError("it is about attacks on training data; run it with purebench poison")
    raw, preset = with_preset(check("board", raw))
    for key in ("dataset", "threat", "defense", "attack"):
        if key not in raw:
            raise UserError(f'the key "{key}" is missing')
    rest = dict(check("threat", raw["threat"]))
    eps = rest.pop("eps", None)
    if eps is None or "norm" not in rest:
        raise UserError('[threat] needs norm = "Linf" and eps = "8/255" (or a list)')
    entries = [trained for entry in raw["defense"] for trained in _trained(check("defense", entry))]
    roots = {"weights_root": weights_root, "data_root": data_root}
    defenses = tuple(describe(entry, raw["dataset"], **roots) for entry in entries)
    verdict, votes = check("verdict", raw.get("verdict", {})), ("m", "k", "sequential")
    values = {k: raw[k] for k in ("dataset", "split", "indices", "block", "seed", "threads", "budget") if k in raw}
    return Board(
        name=raw.get("name", stem),
        title=raw.get("title", stem),
        threats=tuple(ThreatModel(eps=e, **rest) for e in (eps if isinstance(eps, list) else [eps])),
        defenses=defenses,
        attacks=tuple(attack_entry(check("attack", entry), defenses) for entry in raw["attack"]),
        verdict=VerdictSpec(**{k: v for k, v in verdict.items() if k not in votes}),
        nulls=tuple(raw.get("nulls", NULLS)),
        protocols=protocols_of({"protocols": verdict}),
        preset=preset,
        time_limit=duration(raw["time_limit"]) if "time_limit" in raw else None,
        data_root=None if data_root is None else Path(data_root),
        **values,
    )


def _trained(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """An entry for each seed of the training, where a defense names some."""
    plain = {key: value for key, value in entry.items() if key != "seeds"}
    return [plain | {"training_seed": seed} for seed in entry["seeds"]] if "seeds" in entry else [plain]


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
