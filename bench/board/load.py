"""Find, read and check board files."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.board.attack_entry import attack_entry
from bench.board.board import Board
from bench.board.presets import with_preset
from bench.board.schema import check, duration
from bench.spec.aggregation import aggregation_of
from bench.spec.cell import NULLS, VerdictSpec
from bench.spec.threat import ThreatModel
from defenses.utils.errors import UserError, unknown

if TYPE_CHECKING:
    from bench.board.board import Board


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
        protocols=aggregation_of({"protocols": verdict}),
        preset=preset,
        time_limit=duration(raw["time_limit"]) if "time_limit" in raw else None,
        data_root=None if data_root is None else Path(data_root),
        **values,
    )


def _trained(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """An entry for each seed of the training, where a defense names some."""
    plain = {key: value for key, value in entry.items() if key != "seeds"}
    return [plain | {"training_seed": seed} for seed in entry["seeds"]] if "seeds" in entry else [plain]


def board_names() -> list[str]:
    """Names of the boards that come along."""
    import leaderboards

    return sorted(p.stem for p in Path(leaderboards.__file__).parent.glob("*.toml"))


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
    """The board of a preset for some defenses, as `purebench run --preset` makes it.

    Args:
        name: of the preset.
        dataset: name or path.
        defenses: names of the registry, or plug-ins.
        eps: radius; None: the preset's, on its own data sets.
        norm: None: the preset's first.
        indices: index list; None: the preset's on its own data sets, else all images.
        params: of the defense, where there is one.
        stochastic: whether the defenses, modules of one's own, are random.
        weights_root: where weights are looked for first.
        data_root: where data sets lie.

    Returns:
        The board; it is named after preset, data set and defenses, so that its results folder is its own.

    Raises:
        UserError: a name that there is not, a preset that does not fit, or parameters for several defenses.
    """
    from bench.board.schema import check

    check("board", {"preset": name, "dataset": dataset})
    if params and len(defenses) > 1:
        raise UserError("--set is for one defense; run the others apart, or write a board")
    threat = {key: value for key, value in (("norm", norm), ("eps", eps)) if value is not None}
    said = {**({"params": dict(params)} if params else {}), **({"stochastic": True} if stochastic else {})}
    labels = [re.sub(r"[^\w.]+", "-", text).strip("-.") for text in (name, dataset, *defenses)]
    raw = {
        "name": "-".join(labels),
        "title": f"{name}: {dataset}",
        "preset": name,
        "dataset": dataset,
        "threat": threat,
        "defense": [{"name": defense, **said} for defense in defenses],
        **({} if indices is None else {"indices": indices}),
    }
    board = read_board(raw, name, weights_root=weights_root, data_root=data_root)
    board.cells()
    return board
