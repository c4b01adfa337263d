"""Estimate the cost of a cell from its parameters alone: without running anything, and the same on every machine."""

from __future__ import annotations

import math
from collections.abc import Mapping

from bench.attacks.registry import attack_parameters
from bench.spec.cell import Cell, DefenseRef
from defenses.utils.json_values import JsonView
from defenses.utils.parameters import decode

# Parameters by the names of the libraries: calls of an attack are the sum of the first times all of the second.
_STEPS = ("steps", "n_iter", "max_iter", "max_iterations", "iterations", "repeats", "queries", "n_queries")
_REPETITIONS = ("restarts", "n_restarts", "eot_iter", "N")
_GRADIENT = 3  # evaluations of a network forward and back
_A_STEP = 3  # evaluations in a step of a purifier: of some it goes forward alone, of others forward and back


def calls(cell: Cell) -> int:
    """Return how often an iterative attack queries its view with each image, if none leaves early; else 0."""
    if not cell.attack.queries_model:
        return 0
    known = attack_parameters(cell.attack.name)
    params = {**(known.defaults if known else {}), **decode(cell.attack.params)}
    return sum(_count(params, name, 0) for name in _STEPS) * math.prod(_count(params, n, 1) for n in _REPETITIONS)


def evaluations(cell: Cell) -> int:
    """Return about how many evaluations a cell takes; an image through a network forward is 1, backward 2."""
    return attack_evaluations(cell) + verdict_evaluations(cell)


def attack_evaluations(cell: Cell) -> int:
    """Return about how many of its evaluations a cell's attack takes."""
    if not cell.attack.queries_model:
        return 0
    view, target = (cell.source_view, cell.surrogate) if cell.surrogate else (cell.view, cell.defense)
    copies, runs = view.eot, view.runs or _runs(target)
    if (own := cell.attack.copies) is not None:  # as "4-64", which count as their geometric mean
        ends = [int(end) for end in own.a_step.split("-")]
        copies, runs = math.isqrt(ends[0] * ends[-1]), view.runs or (runs if own.on_top else 1)
    if view.mode == "blind":
        query = _GRADIENT
    elif view.mode == "bpda":
        query = copies * runs * (_a_run(target) + _GRADIENT - 1)
    else:
        query = copies * runs * _a_run(target) * _GRADIENT
    return _images(cell) * max(1, calls(cell)) * query


def verdict_evaluations(cell: Cell) -> int:
    """Return about how many of its evaluations a cell's verdict takes."""
    draws = cell.verdict.draws + cell.verdict.selection
    return _images(cell) * draws * _runs(cell.defense) * _a_run(cell.defense)


def _images(cell: Cell) -> int:
    return cell.data.stop - cell.data.start


def _runs(defense: DefenseRef) -> int:
    return _count(_parameters(defense), "runs", 1)


def _a_run(defense: DefenseRef) -> int:
    """Return the evaluations of one run of a defense: those of its purifier and of one classifier."""
    params = _parameters(defense)
    return 1 + _A_STEP * _count(params, "steps", 0) * _count(params, "restarts", 1)


def _parameters(defense: DefenseRef) -> JsonView:
    params = decode(defense.fingerprint.get("parameters"))
    return params if isinstance(params, Mapping) else {}


def _count(params: Mapping[str, object], name: str, otherwise: int) -> int:
    """Return a parameter that is a whole number above 0; any other value counts as `otherwise`."""
    value = params.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else otherwise
