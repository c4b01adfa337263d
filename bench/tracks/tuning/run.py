"""Measure the candidates of a grid, choose one, and keep the table beside the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from bench.board.board import Board
from bench.execution.cell_runner import CellRunner, one_per_defense
from bench.execution.options import Options
from bench.execution.run_board import run_board
from bench.tracks.tuning.choice import RULE, choose, measured
from bench.tracks.tuning.grid import Grid, label
from defenses.utils.checksums import with_checksum
from defenses.utils.errors import UserError
from defenses.utils.files import write_whole
from defenses.utils.json_values import Json
from defenses.zoo.cards import card
from defenses.zoo.checkpoints import weights_hash
from defenses.zoo.weight_paths import find_weights, folder_beside


def tune(
    grid: Grid,
    folder: Path,
    options: Options,
    *,
    indices: str = "first-200",
    draws: int = 3,
    seed: int = 0,
    block: int = 100,
) -> Json:
    """Measure all candidates of a grid on validation images, resumably, and write <defense>.tune.json.

    Args:
        grid: the candidates.
        folder: results folder of their board.
        options: of the run; `weights_root` is where the defense's weights are looked for first.
        indices: index list of the validation images.
        draws: held-out draws.
        seed: of the transfer and the draws.
        block: images of a cell.

    Returns:
        The content of the file, which lies beside the weights of the defense's network: the candidates with clean
        accuracy, accuracy under the transfer, 95 % intervals and cost, the rule, and what it chooses.

    Raises:
        UserError: bad input, no candidate that runs, or a file that cannot be written.
    """
    roots = {"weights_root": options.weights_root, "data_root": options.data_root}
    target, weights = _place(grid, options.weights_root)
    board = grid.board(indices=indices, draws=draws, seed=seed, block=block, roots=roots)
    refused = _refused(board, options)
    candidates = {label(candidate): candidate for candidate in grid.candidates()}
    if refused.keys() >= candidates.keys():
        raise UserError(f"no candidate of the grid runs; {next(iter(refused.values()))}")
    kept = tuple(ref for ref in board.defenses if ref.title not in refused)
    run_board(replace(board, defenses=kept), folder, options)
    rows, failed = measured(folder, [name for name in candidates if name not in refused])
    content = {
        "defense": grid.defense,
        "dataset": grid.dataset,
        "weights": weights,
        "fixed": dict(grid.fixed),
        "setting": {"eps": grid.eps, "split": "validation", "indices": indices, "draws": draws, "seed": seed},
        "rule": RULE,
        "chosen": candidates[choose(rows).label],
        "candidates": [{"parameters": candidates[row.label], **row.numbers()} for row in rows],
        "failed": refused | failed,
    }
    text = json.dumps(with_checksum(content), indent=1, sort_keys=True) + "\n"
    write_whole(target, text, "the measurements are kept; repeat the command")
    return content


def _refused(board: Board, options: Options) -> dict[str, str]:
    """Return why candidates cannot be benchmarked, by label: a run would end at the first of them."""
    refused = {}
    for cell in one_per_defense(board.cells()):
        try:
            CellRunner(board.images, options).check(cell)  # one each: networks of all would fill the memory
        except UserError as reason:
            refused[cell.defense.title] = str(reason)
    return refused


def _place(grid: Grid, root: Path | None) -> tuple[Path, Mapping[str, str]]:
    """Return the file of the table, and the SHA-256 of the defense's weights by name.

    Raises:
        UserError: the defense has no weights, or they are missing.
    """
    entry = card(grid.defense)
    first = {**grid.fixed, **grid.candidates()[0]}
    names = entry.networks(entry.merged(grid.dataset, first))
    if not names:
        raise UserError(f'"{grid.defense}" has no weights to keep a table beside; measure it on a board')
    hashes = {name: weights_hash(name, grid.dataset, root) for name in names}
    folder = folder_beside(find_weights(names[0], grid.dataset, root), root, "the table")
    return folder / f"{grid.defense}.tune.json", hashes
