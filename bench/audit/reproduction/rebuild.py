"""Rebuild cells and defenses from the lines of a results folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.attacks.adaptive.settings import ATTACKS, copies_of, settings_of
from bench.board.defense_entry import describe_loaded
from bench.spec.cell import AttackRef, Cell, Copies, DataRef, DefenseRef, VerdictSpec
from bench.spec.compute import Compute
from bench.spec.threat import ThreatModel
from bench.spec.view import ViewSpec
from defenses.utils.errors import UserError
from defenses.utils.json_values import JsonView
from defenses.utils.names import is_plugin, is_zoo
from defenses.utils.parameters import canonical, decode
from defenses.zoo.cards import COMMON, card
from defenses.zoo.composition import renamed
from defenses.zoo.registry import load_model

if TYPE_CHECKING:
    from bench.store.parts import CellRecord
    from defenses.core.defense import Defense


@dataclass(frozen=True)
class Rebuilt:
    """A rebuilt defense.

    Args:
        defense: None: it cannot be rebuilt.
        problem: the reason.
        changes: of its fingerprint, a line each.
    """

    defense: Defense | None
    problem: str = ""
    changes: tuple[str, ...] = ()


def rebuild_cell(line: CellRecord) -> Cell | None:
    """Return the cell of a stored line; None if the line does not give its key."""
    try:
        identity = line["identity"]
        fingerprint, data, threat, view = (identity[key] for key in ("defense", "data", "threat", "view"))
        attack, params, version = identity["attack"]
        draws, selection, *sequential = identity["verdict"]
        cell = Cell(
            DefenseRef(line["defense"], fingerprint["name"], {}, fingerprint, line["stochastic"], ()),
            AttackRef(line["attack"], attack, params, version, line["minimisation"], copies=_copies(attack, params)),
            DataRef(data[0], data[1], data[2], line["indices"], data[3], data[4], data[5]),
            ThreatModel(threat[0], threat[1], threat[2]),
            ViewSpec(*view),
            VerdictSpec(draws, selection, sequential=tuple(sequential[0]) if sequential else None),
            identity["seed"],
            surrogate=_surrogate(identity.get("source")),
            compute=Compute(*identity.get("compute", ())),
            source_view=ViewSpec(*identity.get("source_view", ())),
        )
    except (KeyError, TypeError, ValueError, IndexError, UserError):
        return None
    return cell if cell.key == line["key"] else None


def _copies(attack: str, params: Mapping[str, object]) -> Copies | None:
    """Return the copies that an attack of `bench` averages by itself; None for attacks of libraries."""
    suite, _, local = attack.partition(":")
    if suite != "bench" or local not in ATTACKS:
        return None
    return copies_of(settings_of(local, {key: decode(value) for key, value in params.items()}))


def _surrogate(fingerprint: JsonView | None) -> DefenseRef | None:
    """Return the surrogate, of which only the fingerprint is known; None: the images were made on the defense."""
    if fingerprint is None:
        return None
    return DefenseRef(fingerprint["name"], fingerprint["name"], {}, fingerprint, False, ())


def rebuild_defense(
    fingerprint: JsonView,
    dataset: str,
    *,
    weights_root: Path | None = None,
    data_root: Path | None = None,
    code: Path | None = None,
) -> Rebuilt:
    """Rebuild the defense of a fingerprint with today's code and weights.

    Args:
        fingerprint: of a cell.
        dataset: name of the data set.
        weights_root: folder where weights are looked for first.
        data_root: folder of data sets.
        code: folder of user-defined defenses and parts; None: the current folder.
    """
    name = str(fingerprint.get("name", ""))
    params = fingerprint.get("parameters") or {}
    user_defined = "state" in fingerprint
    if user_defined and not is_plugin(name):
        return Rebuilt(None, f"it was a {fingerprint.get('class', 'module')} in memory, which no file can make again")
    try:
        path = _plugin_path(name, code) if user_defined else name
        if is_zoo(name):
            params = {"threat_model": fingerprint["threat_model"]}
        elif not user_defined:
            known = {*card(name).parameters, *COMMON[card(name).kind]}
            params = {k: v for k, v in params.items() if k in known}  # others are reported as changes
        if "around" in fingerprint:  # some parts have files as names
            params = renamed(params, lambda part: _plugin_path(part, code))
        seed = _seed(fingerprint)
        roots = {"weights_root": weights_root, "data_root": data_root}
        stochastic = fingerprint.get("stochastic")
        defense = load_model(path, dataset, training_seed=seed, stochastic=stochastic, **roots, **decode(params))
        current = describe_loaded(
            defense,
            None,
            name=path if user_defined else "",
            params=dict(params) if user_defined else None,
            training_seed=seed,
        )
    except UserError as error:
        return Rebuilt(None, str(error))
    return Rebuilt(defense, changes=changes(fingerprint, canonical(current.fingerprint)))


def _plugin_path(name: str, code: Path | None) -> str:
    """Return a plug-in with the folder of its file; fingerprints have the file's name alone.

    Raises:
        UserError: there is no such file.
    """
    file, _, attribute = name.rpartition(":")
    if not file.endswith(".py"):
        return name
    path = (code or Path()) / file
    if not path.is_file():
        raise UserError(f"its file {path} is not there; say where it lies with --code")
    return f"{path}:{attribute}"


def _seed(fingerprint: JsonView) -> int | None:
    """Return the training seed, if the board names one."""
    seed = fingerprint.get("training_seed")
    return None if seed is None else int(seed)


def changes(before: JsonView, after: JsonView) -> tuple[str, ...]:
    """Return the differences of two fingerprints, a line each: "weights of undefended: 0a1b2c3d then, 4e5f6a7b now"."""
    old, new = _flat(before), _flat(after)
    return tuple(
        f"{key}: {_short(old.get(key))} then, {_short(new.get(key))} now"
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key) and key != "nonce"
    )


def _flat(fingerprint: Mapping[str, object]) -> dict[str, object]:
    """Return the values of a fingerprint by readable names, without nesting."""
    values: dict[str, object] = {}
    for key, value in fingerprint.items():
        if key in ("parameters", "weights") and isinstance(value, Mapping):
            singular = "weights of" if key == "weights" else "parameter"
            values |= {f"{singular} {name}": inner for name, inner in value.items()}
        elif key == "around" and isinstance(value, list):
            parts = [(f"{part.get('role')} {part.get('name')} (part {i})", part) for i, part in enumerate(value, 1)]
            values |= {f"{field} of {title}": inner for title, part in parts for field, inner in part.items()}
        else:
            values[key] = value
    return values


def _short(value: object) -> str:
    """Return a value as text of at most 24 characters."""
    text = "none" if value is None else str(value)
    return text if len(text) <= 24 else f"{text[:12]}..."
