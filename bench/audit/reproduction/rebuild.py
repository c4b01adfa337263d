"""Cells and defenses made again from what a results folder says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.attacks.adaptive.settings import ATTACKS, copies_of, settings_of
from bench.spec.cell import AttackRef, Cell, Copies, DataRef, DefenseRef, VerdictSpec
from bench.spec.threat import ThreatModel
from bench.spec.view import ViewSpec
from defenses.utils.errors import UserError
from defenses.utils.names import is_plugin, is_zoo
from defenses.utils.parameters import canonical, decode
from defenses.zoo.cards import COMMON
from defenses.zoo.composition import renamed

if TYPE_CHECKING:
    from defenses.core.defense import Defense


@dataclass(frozen=True)
class Rebuilt:
    """A defense made again.

    Args:
        defense: None: it cannot be made.
        problem: why not.
        changes: what of its fingerprint is not as it was, a line each.
    """

    defense: Defense | None
    problem: str = ""
    changes: tuple[str, ...] = ()


def rebuild_cell(line: Mapping[str, Any]) -> Cell | None:
    """The cell of a stored line; None if the line is not the one that its key was made of."""
    try:
        said = line["identity"]
        fingerprint, data, threat, view = said["defense"], said["data"], said["threat"], said["view"]
        attack, params, version = said["attack"]
        draws, selection, *beyond = said["verdict"]
        cell = Cell(
            DefenseRef(line["defense"], fingerprint["name"], {}, fingerprint, line["stochastic"], ()),
            AttackRef(line["attack"], attack, params, version, line["minimisation"], copies=_copies(attack, params)),
            DataRef(data[0], data[1], data[2], line["indices"], data[3], data[4], data[5]),
            ThreatModel(threat[0], threat[1], threat[2]),
            ViewSpec(*view),
            VerdictSpec(draws, selection, sequential=tuple(beyond[0]) if beyond else None),
            said["seed"],
            surrogate=_surrogate(said.get("source")),
        )
    except (KeyError, TypeError, ValueError, IndexError, UserError):
        return None
    return cell if cell.key == line["key"] else None


def _copies(attack: str, params: Mapping[str, Any]) -> Copies | None:
    """Return the copies that an attack averages by itself; None: it is none of the harness's own."""
    suite, _, local = attack.partition(":")
    if suite != "bench" or local not in ATTACKS:
        return None
    return copies_of(settings_of(local, {key: decode(value) for key, value in params.items()}))


def _surrogate(fingerprint: Mapping[str, Any] | None) -> DefenseRef | None:
    """The defense that the images were made on, where it is another one; only its fingerprint is known."""
    if fingerprint is None:
        return None
    return DefenseRef(fingerprint["name"], fingerprint["name"], {}, fingerprint, False, ())


def rebuild_defense(
    fingerprint: Mapping[str, Any],
    dataset: str,
    *,
    weights_root: Path | None = None,
    data_root: Path | None = None,
    code: Path | None = None,
) -> Rebuilt:
    """The defense that a fingerprint is of, as today's code and weights make it.

    Args:
        fingerprint: as cells tell it.
        dataset: name of the data set.
        weights_root: where weights are looked for first.
        data_root: where data sets lie.
        code: where the files of somebody's own defenses and parts lie; None: in the current folder.
    """
    from bench.board.defense_entry import describe_loaded
    from defenses.core.defense import Foreign
    from defenses.zoo.cards import card
    from defenses.zoo.registry import load_model

    name = str(fingerprint.get("name", ""))
    given = fingerprint.get("parameters") or {}
    own = "state" in fingerprint
    if own and not is_plugin(name):
        return Rebuilt(None, f"it was a {fingerprint.get('class', 'module')} in memory, which no file can make again")
    try:
        where = _file(name, code) if own else name
        if is_zoo(name):
            given = {"threat_model": fingerprint["threat_model"]}
        elif not own:
            known = card(name)
            understood = {*known.parameters, *COMMON[known.kind]}
            given = {k: v for k, v in given.items() if k in understood}  # others are told as changes
        if "around" in fingerprint:  # there are parts whose names are files
            given = renamed(given, lambda part: _file(part, code))
        seed = _seed(fingerprint)
        roots = {"weights_root": weights_root, "data_root": data_root}
        defense = load_model(where, dataset, training_seed=seed, **roots, **decode(given))
        if isinstance(defense, Foreign):
            defense.stochastic = fingerprint.get("stochastic") is True
        own_given = dict(given) if own else None
        now = describe_loaded(defense, None, name=where if own else "", given=own_given, training_seed=seed)
    except UserError as error:
        return Rebuilt(None, str(error))
    return Rebuilt(defense, changes=changes(fingerprint, canonical(now.fingerprint)))


def _file(name: str, code: Path | None) -> str:
    """The plug-in with the folder that it lies in: fingerprints tell the file alone."""
    where, _, what = name.rpartition(":")
    if not where.endswith(".py"):
        return name
    path = (code or Path()) / where
    if not path.is_file():
        raise UserError(f"its file {path} is not there; say where it lies with --code")
    return f"{path}:{what}"


def _seed(fingerprint: Mapping[str, Any]) -> int | None:
    """The seed of the training, where the board named one."""
    seed = fingerprint.get("training_seed")
    return None if seed is None else int(seed)


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    """What two fingerprints do not share, a line each: "weights of undefended: 0a1b2c3d then, 4e5f6a7b now"."""
    old, new = _flat(before), _flat(after)
    return tuple(
        f"{key}: {_short(old.get(key))} then, {_short(new.get(key))} now"
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key) and key != "nonce"
    )


def _flat(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in fingerprint.items():
        if key in ("parameters", "weights") and isinstance(value, Mapping):
            singular = "weights of" if key == "weights" else "parameter"
            found |= {f"{singular} {name}": inner for name, inner in value.items()}
        elif key == "around" and isinstance(value, list):
            parts = [(f"{part.get('role')} {part.get('name')} (part {i})", part) for i, part in enumerate(value, 1)]
            found |= {f"{what} of {part}": inner for part, said in parts for what, inner in said.items()}
        else:
            found[key] = value
    return found


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 24 else f"{text[:12]}..."
