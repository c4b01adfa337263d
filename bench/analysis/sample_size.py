"""Recommend numbers of images and draws for a board before it is run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.analysis.results import read_results
from bench.analysis.rows import choose, grouped
from bench.stats.bootstrap import Split, variance_split
from bench.stats.power import (
    MAX_WIDENING,
    Question,
    detectable,
    draws_worth,
    exact_power,
    paired,
    points,
    unpaired,
    widening,
)

if TYPE_CHECKING:
    from bench.board.board import Board

_UNIFORM = Split(1 / 12, 1 / 6)  # of accuracies uniform on [0, 1]


def advice(board: Board, question: Question, folder: Path) -> Iterator[str]:
    """Yield the lines that `purebench plan --detect` prints.

    Args:
        board: the board, for its numbers of images and draws.
        question: requirements of the comparison.
        folder: its results folder; the variance split is estimated from it if it has results.
    """
    q, alone, both = question, unpaired(question), paired(question)
    yield (
        f"to detect {points(q.detect)} points with {q.power:.0%} power at alpha {q.alpha:g}: "
        f"{alone:,} images for each defense, or {both:,} if both see the same ones and differ on {q.discordance:.0%} "
        f"(McNemar's exact test then has {exact_power(q, both):.1%} power)"
    )
    cells = board.cells()
    images = sum({(c.data.start, c.data.stop): c.data.stop - c.data.start for c in cells}.values())
    differences = [detectable(q, images, same=same) for same in (False, True)]
    apart, together = ("no difference" if d is None else f"{points(d)} points" for d in differences)
    yield f"{images:,} images on this board show {apart} on images of their own, {together} on the same ones"
    draws = board.verdict.draws
    for name, split in _splits(board, folder):
        enough = draws_worth(split)
        if enough is None:
            yield f"draws: {name}: images do not differ beyond what {draws} draws show; more draws show whether they do"
            continue
        yield (
            f"draws: {name}: {draws} widen the interval over images by {widening(split, draws):.1%}, "
            f"{enough} by at most {MAX_WIDENING:.0%}; more are for Rob(M), majorities and the choice of the worst"
        )


def _splits(board: Board, folder: Path) -> Sequence[tuple[str, Split]]:
    """Return the variance split of each stochastic defense's worst case; of uniform accuracies without results."""
    stochastic = {d.label for d in board.defenses if d.stochastic}
    if not stochastic:
        return []
    splits = []
    groups = grouped(read_results(folder)) if (folder / "parts").is_dir() else iter(())
    for group in (g for trained in groups for g in trained):
        name = str(group.rows[0].names["defense"])
        choice = choose(group.needed) if name in stochastic and group.attacks else None
        if choice is not None and len(choice[0]) > 1 and choice[0].draws.min() > 1:
            splits.append((f"{name}, worst case", variance_split(choice[0].withstood, choice[0].draws)))
    return splits or [("accuracies spread evenly", _UNIFORM)]
