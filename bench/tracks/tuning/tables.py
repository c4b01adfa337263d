"""The table of a tuning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.report.format import ABSENT, interval
from bench.report.plain import to_text
from bench.report.table import Table
from bench.tracks.tuning.grid import label


def table(content: Mapping[str, Any]) -> str:
    """Return the candidates of a tuning as text, the chosen one marked.

    Args:
        content: of `bench.tracks.tuning.run.tune`.
    """
    rows = [
        (
            label(row["parameters"]),
            interval(row["clean"], *row["clean_interval"]),
            interval(row["transfer"], *row["transfer_interval"]),
            f"{row['evaluations']:,.0f}",
            "chosen" if row["parameters"] == content["chosen"] else "",
        )
        for row in content["candidates"]
    ]
    rows += [(name, ABSENT, ABSENT, ABSENT, f"error: {reason[:60]}") for name, reason in content["failed"].items()]
    setting = content["setting"]
    title = f"{content['defense']} on {setting['indices']} of the validation images of {content['dataset']}"
    notes = (
        f"transfer: APGD on the bare classifier, Linf {setting['eps']}; {setting['draws']} held-out draws.",
        "evaluations: passes through networks for one prediction of an image.",
        f"{content['rule']}.",
    )
    columns = ("candidate", "clean", "transfer", "evaluations", "")
    strong = frozenset(i for i, row in enumerate(rows) if row[-1] == "chosen")
    text = to_text(Table(title, columns, tuple(rows), notes, tail=1, strong=strong))
    chosen = ", ".join(f"{name} = {_toml(value)}" for name, value in content["chosen"].items())
    return f"{text}\nOn a board: params = {{ {chosen} }}\n"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
