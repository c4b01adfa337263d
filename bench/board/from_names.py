"""Boards without a file: of a preset or of attacks by name, for some defenses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.board.board import Board
from bench.board.labels import with_labels
from bench.board.load import read_board
from bench.board.schema import check
from defenses.utils.errors import UserError
from defenses.utils.json_values import Json, JsonView
from defenses.utils.names import is_plugin, portable
from defenses.utils.text import file_name

_NULLS = ("none", "uniform", "transfer")
if TYPE_CHECKING:
    from bench.spec.cell import DefenseRef


def board_of_names(
    *,
    dataset: str,
    defenses: Sequence[str | DefenseRef],
    preset: str | None = None,
    attacks: Sequence[str] = (),
    eps: str | None = None,
    norm: str | None = None,
    indices: str | None = None,
    params: JsonView | None = None,
    labels: Sequence[str] = (),
    stochastic: bool = False,
    weights_root: Path | None = None,
    data_root: Path | None = None,
) -> Board:
    """Return a board of defenses by name, as `purebench run` without a file runs it.

    Args:
        dataset: name or path of the data set.
        defenses: names of registered defenses or plug-ins; or, all of them, references to models in memory.
        preset: name of the preset that gives the attacks; None: `attacks`.
        attacks: names of attacks, with their default parameters; beside them run clean images, uniform noise, and a
            transfer where there is a classifier for it, which may be named too.
        eps: radius, as "8/255"; None: that of the preset, on the data sets for which it has one.
        norm: "Linf", "L2" or "L1"; None: the first of the preset, else Linf.
        indices: index list; None: that of the preset on its data sets, else all images.
        params: parameters of the defense, if there is only one.
        labels: of the defenses in tables, one for each; empty: their names.
        stochastic: True if the plug-ins among the defenses are modules with random outputs.
        weights_root: where weights are looked for first.
        data_root: where data sets lie.

    Returns:
        The board, named after preset, data set and defenses.

    Raises:
        UserError: unknown name, no radius, a preset that does not fit, or parameters for several defenses.
    """
    check("board", {"dataset": dataset} | ({"preset": preset} if preset else {}), partial=True)
    if params and len(defenses) > 1:
        raise UserError("--set is for one defense; run the others apart, or write a board")
    if preset is None and eps is None:
        raise UserError("the radius is missing; give it, as --eps 8/255")
    references = tuple(d for d in defenses if not isinstance(d, str))
    names = [d if isinstance(d, str) else d.label for d in defenses]
    entries = with_labels([_defense(name, params, stochastic=stochastic) for name in names], labels)
    words = (preset or "attacks", portable(dataset), *(entry["label"] for entry in entries))
    threat = {key: value for key, value in (("norm", norm), ("eps", eps)) if value is not None}
    raw: Json = {
        "name": "-".join(map(file_name, words)),
        "title": f"{preset or 'attacks'}: {portable(dataset)}",
        "dataset": dataset,
        "threat": threat if preset else {"norm": "Linf", **threat},
        "defense": entries,
        **({} if indices is None else {"indices": indices}),
    }
    raw |= {"preset": preset} if preset else _attacks(attacks)
    roots = {"weights_root": weights_root, "data_root": data_root}
    board = read_board(raw, preset or "attacks", references=references, **roots)
    board.cells()
    return board


def _attacks(names: Sequence[str]) -> dict[str, object]:
    """Return the keys of attacks and null attacks; these may be named, too."""
    entries = [{"name": name} for name in names if name not in _NULLS]
    return {"nulls": list(_NULLS)} | ({"attack": entries} if entries else {})


def _defense(name: str, params: Mapping[str, object] | None, *, stochastic: bool) -> dict[str, object]:
    """Return the entry of a defense; a registered one says itself whether it is random."""
    entry: dict[str, object] = {"name": name}
    if params:
        entry["params"] = dict(params)
    if stochastic and is_plugin(name):
        entry["stochastic"] = True
    return entry
