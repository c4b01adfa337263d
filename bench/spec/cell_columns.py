"""The columns of a cell in tables and DataFrames."""

from __future__ import annotations

from typing import TypedDict


class CellColumns(TypedDict, total=False):
    """The result of `Cell.columns()`, a line of plan.jsonl; others than these only where they apply."""

    key: str
    defense: str
    training_seed: int
    attack: str
    view: str
    gradient: str
    eot: int
    runs: int | None
    seed_known: bool
    compute: str
    dataset: str
    split: str
    indices: str
    block: int
    images: int
    norm: str
    eps: str
    targets: str
    knowledge: str
    seed: int
    draws: int
    selection: int
    stochastic: bool
    minimisation: bool
    budget: str
    warnings: list[str]
