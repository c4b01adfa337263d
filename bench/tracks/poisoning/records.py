"""Read the files of a poisoning board's folder, without torch."""

from __future__ import annotations

import json
from pathlib import Path

from defenses.utils.checksums import is_whole
from defenses.utils.errors import UserError
from defenses.utils.hints import warn
from defenses.utils.json_values import Json

PLAN, TRIALS = "plan.json", "trials.jsonl"
SCHEMA = 1
CONTROL = "none"  # no poison

TrialRecord = Json


def read_plan(folder: Path) -> Json:
    """Read the plan of a folder: board, labels of the test images, trials in table order, runs.

    Raises:
        UserError: no results of a poisoning board, or a plan that is damaged or of a newer version.
    """
    file = folder / PLAN
    try:
        plan = json.loads(file.read_text(encoding="utf-8"))
        whole = isinstance(plan, dict) and is_whole(plan) and {"trials", "labels", "runs", "schema"} <= plan.keys()
    except FileNotFoundError:
        raise UserError(f"{folder} holds no results of a poisoning board; run one first") from None
    except (OSError, ValueError, RecursionError):
        whole = False
    if not whole:
        raise UserError(f"{file} is damaged; remove it, and the next run writes it anew")
    if plan["schema"] > SCHEMA:
        raise UserError(f"{file} was written by a newer version of purebench; update, or choose another folder")
    return dict(plan)


def read_trials(folder: Path) -> dict[str, TrialRecord]:
    """Read the finished trials of a folder by key; damaged lines are left out, with a warning, to be run again."""
    file = folder / TRIALS
    if not file.is_file():
        return {}
    lines: dict[str, TrialRecord] = {}
    for number, text in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        try:
            line = json.loads(text)
            if not (isinstance(line, dict) and "sum" in line and is_whole(line)):
                raise ValueError("the checksum is wrong")
        except (ValueError, RecursionError):
            warn(f"{file}, line {number} is damaged; the trial will be run again")
            continue
        lines[line["key"]] = line
    return lines
