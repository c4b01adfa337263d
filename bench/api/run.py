"""Run a board for Python code, and return its records as a frame."""

from __future__ import annotations

import tempfile
import warnings
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from bench.analysis.caveats import uncertified
from bench.analysis.results import load_cells, load_results
from bench.execution.options import Options
from bench.execution.run_board import run_board
from bench.report.attack_warnings import with_warnings
from bench.spec.cell import NULLS
from bench.store.manifest import read_manifest
from defenses.utils.errors import UserError

if TYPE_CHECKING:
    from bench.board.board import Board
    from bench.board.evaluation_options import EvaluationOptions
    from bench.spec.cell import DefenseRef
    from defenses.core.defense import Defense


def results_of_board(board: Board, reference: DefenseRef, defense: Defense, options: EvaluationOptions) -> pd.DataFrame:
    """Run a board and return its records, with a warning for each problem.

    Args:
        board: the board.
        reference: of the defense.
        defense: in memory.
        options: of the call.

    Returns:
        The frame of `load_results` with the column `warnings`; in a notebook it shows the table of the comparison.

    Raises:
        UserError: bad input.
        RuntimeError: no attack could be judged; it names the first reason.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder, loaded = options.out or Path(scratch), {reference.title: defense}
        run_board(board, folder, Options(data_root=options.data_root, quiet=options.quiet, loaded=loaded))
        frame, cells = load_results(folder), load_cells(folder)
        reasons = uncertified(folder, cells, read_manifest(folder))
    problems = _problems(cells)
    if not frame.loc[~frame["attack"].isin(NULLS), "accuracy"].notna().any():
        raise RuntimeError(f"nothing could be judged: {next(iter(problems.values()), 'no attack has run')}")
    caveats = [f"{label}: exact gradients that nothing certifies ({reason})" for label, reason in reasons.items()]
    for problem in (*problems.values(), *caveats):
        warnings.warn(problem, stacklevel=3)
    return _for_notebooks(with_warnings(frame, cells, reasons))


def _problems(cells: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Return a line for each attack and view with a problem, about the first block that has one."""
    problems: dict[tuple[str, str], str] = {}
    for cell in cells[cells["error"].notna()].to_dict("records"):
        kind = "" if cell["status"] == "ok" else f"{cell['status']}: "
        problems.setdefault((cell["attack"], cell["view"]), f"{cell['attack']} | {cell['view']}: {kind}{cell['error']}")
    return problems


def _for_notebooks(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the same frame, which notebooks show as the comparison; frames made from it are shown as any other."""
    reference = weakref.ref(frame)  # a frame that refers to itself is not freed at once

    def shown() -> str | None:
        from bench.report.of_results import notebook_table

        whole = reference()
        if whole is None:
            return None
        try:
            return notebook_table(whole)
        except UserError:  # columns were deleted
            return pd.DataFrame(whole).to_html(max_rows=10)

    frame.__dict__["_repr_html_"] = shown  # of this object alone, so that no class of its own is needed
    return frame
