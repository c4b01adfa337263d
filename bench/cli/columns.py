"""`purebench columns`: say what the columns of the frames mean."""

from __future__ import annotations

import argparse


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    sub.add_argument(
        "words", nargs="*", metavar="FRAME or WORD",
        help="a function of bench, as load_results (default: the list of them), then words that each line must have; "
        "words alone search all frames",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from bench.analysis.columns import columns_of, frames
    from bench.cli.terminal import aligned_each, heading, width
    from defenses.utils.errors import unknown

    known, words = frames(), arguments.words
    frame = words[0] if words and words[0] in known else ""
    sought = [word.lower() for word in (words[1:] if frame else words)]
    found = [c for c in columns_of(frame) if all(w in f"{c.name} {c.meaning}".lower() for w in sought)]
    if not found:
        raise unknown("frame or word", sought[0], known)
    rows = [(c.name, c.dtype, c.unit, c.meaning) for c in found] if words else list(known.items())
    titles = [f"{c.frame}: {known[c.frame]}" if words else "frames" for c in found]
    before = ""
    for title, lines in zip(titles, aligned_each(rows, width(), 2), strict=False):
        if title != before:
            print(*([""] if before else []), heading(title), sep="\n")
        before = title
        print(*lines, sep="\n")
    return 0
