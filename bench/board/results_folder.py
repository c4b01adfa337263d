"""The results folder of a board."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.store.manifest import planned, plans, read_manifest

if TYPE_CHECKING:
    from bench.board.board import Board
    from bench.spec.shard import Shard

ROOT = Path("results")


def default_folder(board: Board) -> Path:
    """Return the folder below results/ that bears the name of a board.

    A board without a name of its own is called like its file. Where there are no results under that name, but some of
    exactly its cells under another, its file was renamed, and they are its results; so are those of a folder whose
    manifest names the board.

    Args:
        board: the board.
    """
    folder = ROOT / board.name
    if board.named or (folder / "plan.jsonl").is_file():
        return folder
    keys = board.keys() or []
    others = _with_plans()
    if (renamed := next((other for other in others if plans(other, keys)), None)) is not None:
        return renamed
    same_name = [other for other in others if read_manifest(other).get("board") == board.name]
    return max(same_name, key=lambda other: len(planned(other) & set(keys)), default=folder)


def shard_folder(board: Board, shard: Shard) -> Path:
    """Return the folder below results/ of a shard of a board, beside those of its other shards."""
    return ROOT / f"{board.name}-shards" / shard.folder


def similar_folder(board: Board, folder: Path) -> tuple[Path, int] | None:
    """Return the folder below results/ that has the most cells of a board, and how many; None without such a folder.

    It is asked for where a board without a name of its own has no results: it may have been renamed and changed.

    Args:
        board: the board.
        folder: its results folder.
    """
    if board.named or (folder / "plan.jsonl").is_file():
        return None
    keys = set(board.keys() or [])
    shared = {other: len(planned(other) & keys) for other in _with_plans()}
    best = max(shared, key=lambda other: shared[other], default=None)
    return None if best is None or not shared[best] else (best, shared[best])


def _with_plans() -> list[Path]:
    return [plan.parent for plan in sorted(ROOT.glob("*/plan.jsonl"))]
