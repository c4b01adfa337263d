"""Find, read and check board files."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import leaderboards
from bench.board.attack_entry import attack_entry
from bench.board.board import Board
from bench.board.defense_entry import describe
from bench.board.presets import with_preset
from bench.board.schema import check, duration
from bench.spec.aggregation import aggregation_of
from bench.spec.cell import NULLS, VerdictSpec
from bench.spec.threat import ThreatModel
from defenses.utils.errors import UserError, unknown
from defenses.utils.text import file_name

_FOLDER = Path(leaderboards.__file__).parent


def load_board(
    path: str | Path, *, weights_root: str | Path | None = None, data_root: str | Path | None = None
) -> Board:
    """Read a board file, and check its cells.

    Args:
        path: a TOML file, or the name of a board of purebench, as "quickstart".
        weights_root: where weights are looked for first.
        data_root: where data sets lie; None: `defenses.utils.paths.data_root`.

    Raises:
        UserError: no such file, not TOML, unknown or missing key, unknown name, a value of the wrong kind or out of
            range.
    """
    file = find_board(path)
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also on too long numbers and too deep lists
        raise UserError(f"{file} is not a TOML file: {error}") from None
    try:
        board = read_board(raw, file.stem, weights_root=weights_root, data_root=data_root)
        board.cells()  # refuses unknown attacks and parameters
        return board
    except RecursionError:
        raise UserError(f"{file} is nested too deeply") from None
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def find_board(path: str | Path) -> Path:
    """Return the file of a board.

    Args:
        path: a TOML file, or the name of a board of purebench.

    Raises:
        UserError: there is none.
    """
    for candidate in (Path(path), _FOLDER / Path(path).name, _FOLDER / f"{path}.toml"):
        if candidate.is_file():
            return candidate
    raise unknown("board", str(path), board_names())


def read_board(
    raw: dict[str, Any], stem: str, *, weights_root: str | Path | None = None, data_root: str | Path | None = None
) -> Board:
    """Return the board of a parsed TOML file.

    Args:
        raw: the parsed file.
        stem: name of a board without the key "name".
        weights_root: where weights are looked for first.
        data_root: where data sets lie; None: `defenses.utils.paths.data_root`.

    Raises:
        UserError: unknown or missing key, unknown name, a value of the wrong kind or out of range.
    """
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
        protocols=aggregation_of({"protocols": verdict}),
        preset=preset,
        time_limit=duration(raw["time_limit"]) if "time_limit" in raw else None,
        data_root=None if data_root is None else Path(data_root),
        **values,
    )


def _trained(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a defense entry for each training seed of an entry; the entry itself where it has none."""
    plain = {key: value for key, value in entry.items() if key != "seeds"}
    return [plain | {"training_seed": seed} for seed in entry["seeds"]] if "seeds" in entry else [plain]


def board_names() -> list[str]:
    """Return the names of the boards of purebench."""
    return sorted(p.stem for p in _FOLDER.glob("*.toml"))


def board_of_preset(
    name: str,
    *,
    dataset: str,
    defenses: Sequence[str],
    eps: str | None = None,
    norm: str | None = None,
    indices: str | None = None,
    params: Mapping[str, Any] | None = None,
    stochastic: bool = False,
    weights_root: Path | None = None,
    data_root: Path | None = None,
) -> Board:
    """Return the board of a preset for some defenses, as `purebench run --preset` runs it.

    Args:
        name: name of the preset.
        dataset: name or path of the data set.
        defenses: names of registered defenses or plug-ins.
        eps: radius, as "8/255"; None: that of the preset, on the data sets for which it has one.
        norm: "Linf", "L2" or "L1"; None: the first of the preset.
        indices: index list; None: that of the preset on its data sets, else all images.
        params: parameters of the defense, if there is only one.
        stochastic: True if the defenses are user-defined modules with random outputs.
        weights_root: where weights are looked for first.
        data_root: where data sets lie.

    Returns:
        The board, named after preset, data set and defenses.

    Raises:
        UserError: unknown name, a preset that does not fit, or parameters for several defenses.
    """
    check("board", {"preset": name, "dataset": dataset})
    if params and len(defenses) > 1:
        raise UserError("--set is for one defense; run the others apart, or write a board")
    threat = {key: value for key, value in (("norm", norm), ("eps", eps)) if value is not None}
    options = {**({"params": dict(params)} if params else {}), **({"stochastic": True} if stochastic else {})}
    labels = [file_name(text) for text in (name, dataset, *defenses)]
    raw = {
        "name": "-".join(labels),
        "title": f"{name}: {dataset}",
        "preset": name,
        "dataset": dataset,
        "threat": threat,
        "defense": [{"name": defense, **options} for defense in defenses],
        **({} if indices is None else {"indices": indices}),
    }
    board = read_board(raw, name, weights_root=weights_root, data_root=data_root)
    board.cells()
    return board
