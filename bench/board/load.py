"""Find, read and check board files."""

from __future__ import annotations

import contextlib
import itertools
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

import leaderboards
from bench.board.attack_entry import attack_entry, protocol_entries
from bench.board.board import Board
from bench.board.defense_entry import describe
from bench.board.duration import duration
from bench.board.labels import with_labels
from bench.board.presets import find_preset, with_preset
from bench.board.schema import check
from bench.spec.aggregation import aggregation_of
from bench.spec.cell import NULLS, DefenseRef, VerdictSpec
from bench.spec.compute import Compute
from bench.spec.threat import ThreatModel
from defenses.utils.errors import UserError, gathered, unknown
from defenses.utils.json_values import Json

_FOLDER = Path(leaderboards.__file__).parent


_BARE_FRACTION = re.compile(r"[=,\[]\s*\d+\s*/\s*\d+")


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
    raw = read_toml(file)
    try:
        board = read_board(raw, file.stem, weights_root=weights_root, data_root=data_root)
        board.cells()  # refuses unknown attacks and parameters
        return board
    except RecursionError:
        raise UserError(f"{file} is nested too deeply") from None
    except UserError as error:
        raise error.within(str(file)) from None


def read_toml(file: Path) -> dict[str, object]:
    """Return the content of a TOML file.

    Raises:
        UserError: it is none.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also on too long numbers and too deep lists
        text = file.read_text(encoding="utf-8", errors="replace")
        hint = '; write fractions in quotes, as eps = "8/255"' if _BARE_FRACTION.search(text) else ""
        raise UserError(f"{file} is not a TOML file: {error}{hint}") from None


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
    if str(path).endswith(".toml"):
        raise UserError(f"there is no file {path}; boards of purebench: {', '.join(board_names())}")
    raise unknown("board", str(path), board_names())


def default_name(path: str | Path) -> str:
    """Return the name of a board's results folder, from its file alone.

    Raises:
        UserError: there is no such board.
    """
    file = find_board(path)
    with contextlib.suppress(ValueError, RecursionError):
        return str(tomllib.loads(file.read_text(encoding="utf-8")).get("name", file.stem))
    return file.stem


def read_board(
    raw: Json,
    stem: str,
    *,
    references: tuple[DefenseRef, ...] = (),
    weights_root: str | Path | None = None,
    data_root: str | Path | None = None,
) -> Board:
    """Return the board of a parsed TOML file.

    Args:
        raw: the parsed file.
        stem: name of a board without the key "name".
        references: defenses in memory, in place of those of the file.
        weights_root: where weights are looked for first.
        data_root: where data sets lie; None: `defenses.utils.paths.data_root`.

    Raises:
        UserError: unknown or missing key, unknown name, a value of the wrong kind or out of range.
    """
    if "training" in raw:
        raise UserError("it is about attacks on training data; run it with purebench poison")
    raw, preset = with_preset(check("board", raw, partial="preset" in raw))
    raw = check("board", raw)
    rest = dict(raw["threat"])
    eps = rest.pop("eps")
    entries = [trained for entry in with_labels(raw["defense"]) for trained in _trained(entry)]
    roots = {"weights_root": weights_root, "data_root": data_root}
    defenses = references or tuple(gathered(lambda entry: describe(entry, raw["dataset"], **roots), entries))
    attacks, protocols = with_labels(raw.get("attack", ())), _by_preset(raw.get("protocol", ()))
    of_presets = gathered(lambda entry: tuple(protocol_entries(entry, raw["threat"], defenses)), protocols)
    verdict, votes = raw.get("verdict", {}), ("m", "k", "sequential")
    values = {k: raw[k] for k in ("dataset", "split", "indices", "block", "seed", "threads", "budget") if k in raw}
    return Board(
        name=raw.get("name", stem),
        title=raw.get("title", stem),
        named="name" in raw,
        threats=tuple(ThreatModel(eps=e, **rest) for e in (eps if isinstance(eps, list) else [eps])),
        defenses=defenses,
        attacks=(*gathered(lambda entry: attack_entry(entry, defenses), attacks), *itertools.chain(*of_presets)),
        verdict=VerdictSpec(**{k: v for k, v in verdict.items() if k not in votes}),
        nulls=tuple(raw.get("nulls", NULLS)),
        protocols=aggregation_of({"protocols": verdict}),
        compute=Compute(**raw.get("compute", {})),
        preset=preset,
        presets=tuple(find_preset(entry["preset"]) for entry in protocols),
        time_limit=duration(raw["time_limit"]) if "time_limit" in raw else None,
        data_root=None if data_root is None else Path(data_root),
        **values,
    )


def _by_preset(entries: Iterable[Json]) -> list[Json]:
    """Return the protocol entries of a board, those of one preset as one, on all defenses that they name."""
    on: dict[str, list[list[str]]] = {}
    for entry in entries:
        words = entry.get("on", [])
        on.setdefault(entry["preset"], []).append([words] if isinstance(words, str) else words)
    return [{"preset": name, "on": [*itertools.chain(*named)] if all(named) else []} for name, named in on.items()]


def _trained(entry: Json) -> list[Json]:
    """Return a defense entry for each training seed of an entry; the entry itself where it has none."""
    plain = {key: value for key, value in entry.items() if key != "seeds"}
    return [plain | {"training_seed": seed} for seed in entry["seeds"]] if "seeds" in entry else [plain]


def board_names() -> list[str]:
    """Return the names of the boards of purebench."""
    return sorted(p.stem for p in _FOLDER.glob("*.toml"))
