"""Say what to do after a run."""

from __future__ import annotations

import shlex
from pathlib import Path

from bench.board.results_folder import ROOT
from bench.spec.shard import Shard
from defenses.utils.text import clean


def next_step(board: str, folder: Path, shard: Shard | None) -> str:
    """Return a line with the commands that go on from a run that has ended.

    Args:
        board: its name.
        folder: of its results.
        shard: that was run; None: the whole board.
    """
    if shard is not None:
        every = f"{shlex.quote(str(folder.parent))}/*-of-{shard.of}" if folder.name == shard.folder else "FOLDERS"
        whole = shlex.quote(str(ROOT / board))
        return clean(f"next, when all {shard.of} shards are done: purebench merge {every} --out {whole}")
    results = shlex.quote(str(folder))
    return clean(f"next: purebench audit {results} (can they be trusted?), purebench site {results} (every image)")
