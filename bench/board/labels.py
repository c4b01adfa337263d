"""Labels of defenses and attacks that a board gives none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from defenses.utils.errors import UserError
from defenses.utils.json_values import Json, JsonView
from defenses.utils.names import short_names


def with_labels(entries: Iterable[JsonView], labels: Sequence[str] = ()) -> list[Json]:
    """Return entries of a board, each with a label: its own, else its name, of a file without needless folders.

    Args:
        entries: defenses or attacks of a board.
        labels: of the command line, one for each entry; empty: none.

    Raises:
        UserError: there are more or fewer labels than entries.
    """
    found = [dict(entry) for entry in entries]
    if labels and len(labels) != len(found):
        raise UserError(f"the defenses are {len(found)} and the labels {len(labels)}; give one for each")
    for entry, label in zip(found, labels or short_names([entry["name"] for entry in found]), strict=True):
        entry["label"] = label if labels else entry.get("label", label)
    return found
