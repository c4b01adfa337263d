"""A submitted row as it would stand on its board."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.analysis.leaderboard import leaderboard
from bench.report.format import interval
from bench.submissions.add import stage
from bench.submissions.card import card_claims, read_card
from bench.submissions.submission import Finding, Submission
from defenses.utils.errors import UserError
from defenses.utils.text import counted


def standing(row: Submission, found: Sequence[Finding], board: Path | None) -> list[str]:
    """Return the row of each threat as text: range of ranks, worst case, clean accuracy, deciding attack, audit.

    Args:
        row: the submission.
        found: what its checks found; a row that fails one is shown by itself, and without a rank.
        board: results folder of the board; None: the row by itself.
    """
    try:
        if board is None or found:
            frame, among = leaderboard(row.results), "by itself"
        else:
            with tempfile.TemporaryDirectory() as folder:
                stage(board, row, Path(folder) / "board")
                frame, among = leaderboard(Path(folder) / "board"), f"on {board.name}"
        lines = frame[frame["defense"] == row.label].to_dict("records")
        ranks = ["no rank (rejected)" if found else _ranked(frame, line) for line in lines]
        return [_line(line, f"{among}, {rank}") for line, rank in zip(lines, ranks, strict=True)] + _claims(row)
    except Exception as error:  # whatever a file of others holds
        return [f"{row.label}: its row cannot be computed ({error})"]


def _ranked(frame: Any, line: dict[Any, Any]) -> str:
    """Return the range of ranks among the rows of a threat that have one."""
    low, high = line["rank_low"], line["rank_high"]
    if pd.isna(low):
        return f"no rank ({line['status'] if line['status'] != 'ok' else 'fails its audit'})"
    same = (frame["norm"] == line["norm"]) & (frame["eps"] == line["eps"]) & (frame["targets"] == line["targets"])
    span = str(low) if low == high else f"{low}-{high}"
    return f"rank {span} of {int((same & frame['rank_low'].notna()).sum())}"


def _line(line: dict[Any, Any], where: str) -> str:
    ends = ("mean", "low", "high")
    worst, clean = (interval(*(line[f"{name}_{end}"] for end in ends)) for name in ("worst", "clean"))
    audit = f"fails {line['audit_failed']}" if line["audit_failed"] else line["audit"]
    decided = f", decided by {line['worst_attack']} ({line['worst_view']})" if line["worst_attack"] else ""
    return (
        f"{line['defense']} at {line['norm']} {line['eps']} {where}: worst case {worst} %, clean {clean} %{decided}; "
        f"audit: {audit}; exact gradients: {line['certificate']}"
    )


def _claims(row: Submission) -> list[str]:
    try:
        claims = card_claims(read_card(row.card), row.label)
    except UserError:
        return []
    return [f"{counted(len(claims), 'claim')} on its card"] if claims else []
