"""Clocks that go backwards."""

from __future__ import annotations

import os
from pathlib import Path

from faults.catalogue import case
from faults.ground import Ground, Outcome, finished


def _ages(folder: Path, when: int) -> None:
    for path in folder.rglob("*"):
        os.utime(path, (when, when))


@case("all clocks a second earlier at every look", "no negative seconds in any record")
def backwards(ground: Ground) -> Outcome:
    from bench.analysis.results import load_cells, load_results

    out = ground.copy("half")
    before = finished(out)
    told = ground.forked(ground.base.board, out, ["clock", 1.0])
    assert "-" not in "".join(x.rpartition("ETA")[2] for x in told.stderr.splitlines() if "ETA" in x), told.stderr
    cells = load_cells(out)
    assert (cells[["seconds_attack", "seconds_verdict"]] >= 0).all(axis=None)
    assert (load_results(out)["seconds"] >= 0).all()
    assert finished(out).items() >= before.items()
    return Outcome(told, code=0, folder=out, board=ground.base.board, kept=finished(out))


@case("files of the future: all times of a half finished folder are in 2100", "the run goes on as ever")
def future(ground: Ground) -> Outcome:
    out = ground.copy("nearly")
    _ages(out, 4102444800)
    told = ground.run(ground.base.board, out)
    return Outcome(told, code=0, folder=out, kept=finished(ground.base.nearly))


@case("a cell done again while the clock stands still or goes back", "the newer result counts, not the newer time")
def same_time(ground: Ground) -> Outcome:
    from bench.board.load import load_board
    from bench.execution.cell_runner import CellRunner
    from bench.execution.options import Options
    from bench.store.folder import Store
    from bench.store.parts import stored

    out = ground.copy()
    whole = finished(out)
    _ages(out, 4102444800)
    board = load_board(ground.base.board)
    cell = board.cells()[0]
    store = Store(out)
    store.cell_record(cell.key)  # has seen the merged part
    result = CellRunner(board.images, Options()).execute(cell)
    result.line["run"] = "later"
    store.save(result)
    _ages(out / "parts" / f"cell-{cell.key}", 1)
    assert stored(out / "parts")[cell.key][0]["run"] == "later"
    told = ground.run(ground.base.board, out)
    return Outcome(told, code=0, folder=out, kept=whole | {cell.key: "later"})
