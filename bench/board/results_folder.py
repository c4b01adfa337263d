"""The results folder of a board."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.store.manifest import plans

if TYPE_CHECKING:
    from bench.board.board import Board

ROOT = Path("results")


def default_folder(board: Board) -> Path:
    """Return the folder below results/ that bears the name of a board.

    A board without a name of its own is called like its file. Where there are no results under that name, but some of
    exactly its cells under another, its file was renamed, and they are its results.

    Args:
        board: the board.
    """
    folder = ROOT / board.name
    if board.named or (folder / "plan.jsonl").is_file():
        return folder
    keys = board.keys() or []
    return next((plan.parent for plan in sorted(ROOT.glob("*/plan.jsonl")) if plans(plan.parent, keys)), folder)
