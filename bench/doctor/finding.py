"""Findings of the doctor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from bench.doctor.environment import Environment

Status = Literal["ok", "warn", "broken"]


@dataclass(frozen=True)
class Diagnosis:
    """The outcome of a check.

    Args:
        check: its name.
        status: "broken": a part of purebench cannot run, or would run wrongly; "warn": it can, but may go wrong; "ok".
        evidence: observed facts.
        breaks: the parts that do not work; "" when all is well.
        remedy: the exact change; "" when all is well.
        concerns: libraries that must not be used while this is broken.
    """

    check: str
    status: Status
    evidence: str
    breaks: str = ""
    remedy: str = ""
    concerns: tuple[str, ...] = ()


Check = Callable[[Environment], Iterator[Diagnosis]]
