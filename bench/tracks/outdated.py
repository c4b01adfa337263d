"""Finished lines of a track that are of earlier code of the user, earlier data, or code that cannot be identified."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from bench.execution.sources import Sources, problem_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.spec.cell import DefenseRef
    from bench.store.jsonl import JsonlFile
    from defenses.utils.identity import Provenance


def drop_outdated(
    file: JsonlFile, defense: DefenseRef | Provenance | None, revisions: Mapping[str, str] | None = None
) -> str:
    """Drop the entries of a file that do not hold for today's code of a defense, or for today's data.

    Args:
        file: opened; its entries have the key "sources", see `bench.execution.sources`, if they are of user's code.
        defense: the defense; None: its code counts as unchanged.
        revisions: of the data by the key of entries, whose key "revision" has theirs; None: data count as unchanged.

    Returns:
        Text for the user, as "5 finished lines are of an earlier mine.py and are done again"; "" without any.
    """
    sources, texts = Sources(), {}
    for key, entry in file.entries.items():
        if revisions and entry["revision"] != revisions.get(key, entry["revision"]):
            texts[key] = "finished lines are of an earlier revision of the data and are done again"
        elif defense is None:
            continue
        elif earlier := sources.earlier_file_of(defense, entry):
            texts[key] = f"finished lines are of an earlier {earlier} and are done again"
        elif problem := problem_of(entry):
            texts[key] = f"finished lines are done again: the model cannot be identified ({problem})"
    file.drop(texts)
    return "; ".join(f"{n} {text}" for text, n in Counter(texts.values()).items())
