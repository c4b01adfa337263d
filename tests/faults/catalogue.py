"""The table of faults. A case is a function that brings a fault about and says what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "CATALOGUE.md"

#: the modules of the cases, in the order of the page
GROUPS = (
    *("killed", "interrupted", "downloads", "disk", "damaged", "schema", "clock", "numbers", "models", "attacks"),
    *("hostile", "code", "data", "answers", "input", "ray"),  # the last: its cluster runs until the end
)

_HEAD = """# Fault catalogue

What can go wrong, and what must happen. Every line is a test (`pytest tests/faults`); this page is made from them by
`python -m faults.write`, in the folder `tests`.

After each fault the same is checked: no wrong number in any table (records, draws, adversarial images and tables equal
those of an undisturbed run, or the cells in question are shown as errors without a rank), no finished work lost (cells
that were whole are not computed again), and a message in one line that names the file or the cell, with the exit code.
"""


@dataclass(frozen=True)
class Case:
    """A fault.

    Args:
        name: of the test.
        group: heading of the table.
        fault: what goes wrong.
        must: what must happen.
        bring: brings the fault about in a `Ground`, and returns an `Outcome` or several.
    """

    name: str
    group: str
    fault: str
    must: str
    bring: Callable[..., Any]


CASES: dict[str, Case] = {}


def case(fault: str, must: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Put a function on the list; it is called after its module and its own name."""

    def put(bring: Callable[..., Any]) -> Callable[..., Any]:
        group = bring.__module__.rpartition(".")[2].removeprefix("cases_")
        name = f"{group}-{bring.__name__.replace('_', '-')}"
        assert name not in CASES, name
        CASES[name] = Case(name, group, fault, must, bring)
        return bring

    return put


def page() -> str:
    """The catalogue in Markdown."""
    lines = [_HEAD]
    for group in GROUPS:  # not in the order of import: a test may have imported one of them before the others
        lines += [f"## {group.capitalize()}", "", "| case | fault | must happen |", "| --- | --- | --- |"]
        lines += [f"| `{c.name}` | {c.fault} | {c.must} |" for c in CASES.values() if c.group == group]
        lines += [""]
    return "\n".join([*lines, f"{len(CASES)} cases."]) + "\n"
