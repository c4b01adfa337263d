"""Boards: TOML files that say what is run. A board expands into cells; nothing here imports torch."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bench.cell import GIVEN, NULLS, AttackRef, Cell, DataRef, DefenseRef, VerdictSpec
from bench.data import DatasetInfo, dataset_info, labels_of
from bench.indices import resolve
from bench.limits import duration
from bench.schema import check
from bench.suites import find_attack
from bench.threat import ThreatModel
from bench.viewspec import ViewSpec
from defenses.errors import UserError, unknown
from defenses.registry import canonical, decode

RESERVED = (*NULLS, "worst case", "clean images", "uniform noise")  # rows of every table


@dataclass(frozen=True)
class AttackEntry:
    """An attack of a board: how it is called, on which views, and against which defenses (labels; empty: all)."""

    name: str
    label: str
    params: Mapping[str, Any] = field(default_factory=dict)
    views: tuple[ViewSpec, ...] = (ViewSpec(),)
    on: tuple[str, ...] = ()


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
        data_root: where data sets lie; None: where `bench.data.data_root` says.

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

    def __post_init__(self) -> None:
        numbers = {key: getattr(self, key) for key in ("block", "threads", "seed")}
        check("board", numbers)
        check("verdict", dataclasses.asdict(self.verdict))
        names = {
            "defense label": _labels(self.defenses),
            "attack label": [a.label for a in self.attacks],
            "threat": list(map(str, self.threats)),
        }
        for what, given in names.items():
            _unique(what, given)
        for entry in self.attacks:
            _check_label(entry)

    def cells(self) -> list[Cell]:
        """All cells, in table order, each once.

        Raises:
            UserError: an attack or parameter that does not exist, indices out of range, two labels for one thing.
        """
        info = dataset_info(self.dataset, root=self.data_root)
        blocks = tuple(_blocks(info, self.split, self.indices, self.block, self.data_root))
        nulls = [AttackEntry(name=name, label=name) for name in NULLS]
        cells: dict[str, Cell] = {}
        for threat in self.threats:
            for defense in self.defenses:
                for entry in nulls + list(self.attacks):
                    for cell in self._pair(info.num_classes, blocks, threat, defense, entry):
                        if cell.key in cells:
                            raise _same(cell, cells[cell.key])
                        cells[cell.key] = cell
        return list(cells.values())

    def _pair(
        self,
        num_classes: int,
        blocks: tuple[DataRef, ...],
        threat: ThreatModel,
        defense: DefenseRef,
        entry: AttackEntry,
    ) -> Iterable[Cell]:
        if entry.on and not {defense.label, "stochastic" if defense.stochastic else "deterministic"} & set(entry.on):
            return
        params = decode(entry.params)
        attack = find_attack(entry.name, params)
        warnings = (*attack.warnings, *attack.notes(threat, num_classes, params))
        reference = AttackRef(entry.label, entry.name, entry.params, attack.version, attack.minimisation, warnings)
        verdict = self.verdict if defense.stochastic else VerdictSpec(1, 0, self.verdict.batch)
        for view in dict.fromkeys(_view_for(defense, v, entry.name) for v in entry.views):
            for data in blocks:
                yield Cell(defense, reference, data, threat, view, verdict, self.seed, self.budget)


def _view_for(defense: DefenseRef, view: ViewSpec, attack: str) -> ViewSpec:
    """The view without what makes no difference: to what does not look, a deterministic defense, a bare classifier."""
    if attack in NULLS or attack.startswith(GIVEN):
        return ViewSpec(gradient=defense.gradients[0])
    if not defense.stochastic:
        return ViewSpec(gradient=view.gradient if view.gradient in defense.gradients else "exact")
    if view.gradient == "blind":
        return ViewSpec(gradient="blind")
    if not defense.has_runs:
        return dataclasses.replace(view, runs=None)
    return view


def _same(cell: Cell, other: Cell) -> UserError:
    if cell.defense.title != other.defense.title:
        return UserError(f'the defense "{cell.defense.title}" is the same as "{other.defense.title}"; leave one out')
    where = f"on {cell.defense.label} ({cell.view_label})"
    return UserError(f'the attack "{cell.attack.label}" is the same as "{other.attack.label}" {where}; leave one out')


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
        data_root: where data sets lie; None: where `bench.data.data_root` says.

    Raises:
        UserError: no such file, not TOML, unknown or missing key, unknown name, a value of the wrong kind or out of
            range.
    """
    from bench.describe import describe

    file = find_board(path)
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # of numbers too long and lists too deep too
        raise UserError(f"{file} is not a TOML file: {error}") from None
    try:
        board = _parse(raw, file.stem, partial(describe, weights_root=weights_root))
        board = dataclasses.replace(board, data_root=None if data_root is None else Path(data_root))
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


def _parse(raw: dict[str, Any], stem: str, describe: Callable[[dict[str, Any], str], DefenseRef]) -> Board:
    check("board", raw)
    for key in ("dataset", "threat", "defense", "attack"):
        if key not in raw:
            raise UserError(f'the key "{key}" is missing')
    threat = check("threat", raw["threat"])
    eps = threat.get("eps")
    rest = {k: v for k, v in threat.items() if k != "eps"}
    if eps is None or "norm" not in rest:
        raise UserError('[threat] needs norm = "Linf" and eps = "8/255" (or a list)')
    entries = [trained for entry in raw["defense"] for trained in _trained(check("defense", entry))]
    defenses = tuple(describe(entry, raw["dataset"]) for entry in entries)
    values = {k: raw[k] for k in ("dataset", "split", "indices", "block", "seed", "threads", "budget") if k in raw}
    return Board(
        name=raw.get("name", stem),
        title=raw.get("title", stem),
        threats=tuple(ThreatModel(eps=e, **rest) for e in (eps if isinstance(eps, list) else [eps])),
        defenses=defenses,
        attacks=tuple(attack_entry(check("attack", entry), {d.label for d in defenses}) for entry in raw["attack"]),
        verdict=VerdictSpec(**check("verdict", raw.get("verdict", {}))),
        time_limit=duration(raw["time_limit"]) if "time_limit" in raw else None,
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


def attack_entry(entry: dict[str, Any], labels: set[str]) -> AttackEntry:
    """An attack of a board.

    Args:
        entry: {name, label?, params?, views?, on?}, checked.
        labels: of the board's defenses.

    Raises:
        UserError: unknown attack, parameter, view or defense.
    """
    if "name" not in entry:
        raise UserError('an attack has no name; write name = "autoattack:apgd-ce"')
    name, params = entry["name"], entry.get("params", {})
    find_attack(name, params)
    on = entry.get("on", [])
    on = (on,) if isinstance(on, str) else tuple(on)
    for label in on:
        if label not in labels | {"stochastic", "deterministic"}:
            raise unknown(f'defense in "on" of {name}', label, labels | {"stochastic", "deterministic"})
    views = tuple(ViewSpec(**check("view", view)) for view in entry.get("views", [{}]))
    return AttackEntry(name, entry.get("label", name), canonical(params), views, on)


def _check_label(entry: AttackEntry) -> None:
    if entry.name in NULLS:
        raise UserError(f'"{entry.name}" is judged on every board; leave it out')
    if " ".join(entry.label.lower().replace("-", " ").replace("_", " ").split()) in RESERVED:
        raise UserError(f'the attack label "{entry.label}" is taken by a row of every table; choose another')


def _unique(what: str, names: list[str]) -> None:
    if not names:
        raise UserError(f"there is no {what.partition(' ')[0]}; name at least one")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f'the {what} "{name}" occurs twice; give each a label of its own')
