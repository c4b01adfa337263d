"""What faults are tried on: a small board, its results undisturbed, and what must hold after every fault."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from boards import BOARD, ROOT, purebench_here, write_board

from bench.store.parts import SUMS, sha256
from faults import driver
from faults.models import MODELS
from faults.sameness import same

if TYPE_CHECKING:
    from faults.nodes import Nodes

_OF_TESTS = ("pytest", "_pytest", "faults", "boards", "conftest", "__main__", "test_catalogue")
_HERE = ("--workers", "0")  # no worker process
Runs = dict[str, str]  # by key of a finished cell: the run that finished it


@dataclass(frozen=True)
class Told:
    """What a command answered."""

    code: int
    stdout: str
    stderr: str
    seconds: float = 0.0

    def problems(self) -> list[str]:
        """The lines that are about something wrong."""
        return [x for x in self.stderr.splitlines() if x.startswith(("purebench:", "warning:"))]


@dataclass(frozen=True)
class Outcome:
    """What came of a fault.

    Args:
        told: the answer of the command that met it; None where it was killed or there was no fault to tell of.
        names: what its message must name, all in one line.
        code: the exit code.
        folder: the results; None: there are none, nor may there be.
        board: repeated to mend the results; None: they are judged as they are.
        kept: the cells that were finished before the fault, none of which may be computed again.
        errors: (defense, attack) that end as an error: these have no numbers and their defense no rank. "*": all.
        reference: undisturbed results of the same board; None: those of the base.
    """

    told: Told | None = None
    names: tuple[str, ...] = ()
    code: int = 2
    folder: Path | None = None
    board: Path | None = None
    kept: Runs = field(default_factory=dict)
    errors: tuple[tuple[str, str], ...] = ()
    reference: Path | None = None


class Driver:
    """The forking process of `faults.driver`."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "faults.driver"]
        paths = f"{ROOT}:{ROOT / 'tests'}"
        self._process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdin is not None
        loaded = [name for name in sys.modules if name.partition(".")[0] not in _OF_TESTS]
        print(json.dumps(loaded), file=self._process.stdin, flush=True)

    def __call__(self, *jobs: dict[str, Any]) -> list[Told]:
        """Run commands at the same time."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"jobs": jobs}), file=self._process.stdin, flush=True)
        told = [Told(**answer) for answer in json.loads(self._process.stdout.readline())]
        if any(t.code == driver.NOT_PERMITTED for t in told):
            pytest.skip("no right to mount here")
        return told

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


@dataclass(frozen=True)
class Base:
    """Made once: the models, the reference results, and some that are half done."""

    folder: Path
    driver: Driver

    @property
    def board(self) -> Path:
        """The board of the reference."""
        return self.folder / "small.toml"

    @property
    def reference(self) -> Path:
        """Undisturbed results."""
        return self.folder / "reference"

    @property
    def half(self) -> Path:
        """One defense finished and merged, two cells of the other lying apart, ten missing."""
        return self.folder / "half"

    @property
    def nearly(self) -> Path:
        """One defense finished and merged, ten cells of the other lying apart, two missing."""
        return self.folder / "nearly"


def make_base(folder: Path) -> Base:
    """Run the board undisturbed."""
    from bench.board.load import load_board
    from bench.execution.cell_runner import CellRunner
    from bench.execution.options import Options
    from bench.execution.run_board import run_board
    from bench.store.folder import Store

    path = write_board(folder)
    (folder / "models.py").write_text(MODELS)
    board = load_board(path)
    first = run_command("run", path, "--out", folder / "reference")
    assert first.code == 0, first.stderr
    base = Base(folder, Driver())
    run_board(board, base.half, Options(defenses=("linear",), quiet=True, workers=0))
    shutil.copytree(base.half, base.nearly)
    shop, half, nearly = CellRunner(board.images, Options()), Store(base.half), Store(base.nearly)
    noisy = [c for c in board.cells() if c.defense.label == "noisy"]
    for cell in noisy[:-2]:
        result = shop.execute(cell)
        result.line["run"] = "apart"
        for store in (half, nearly) if cell in noisy[:2] else (nearly,):
            store.save(result)
    return base


def run_command(*arguments: object) -> Told:
    """The command, in this process."""
    try:
        done = purebench_here(*arguments)
    except SystemExit as error:  # argparse
        return Told(error.code if isinstance(error.code, int) else 2, "", "")
    return Told(done.returncode, done.stdout, done.stderr)


def sign(part: Path) -> None:
    """Write the checksums of a part again."""
    sums = {p.name: sha256(p) for p in sorted(part.iterdir()) if p.name != SUMS}
    (part / SUMS).write_text(json.dumps(sums))


@dataclass(frozen=True)
class Ground:
    """Where one case happens; `nodes` starts the Ray cluster of the cases that need one."""

    base: Base
    tmp: Path
    monkeypatch: pytest.MonkeyPatch
    nodes: Callable[[], Nodes]

    def board(self, more: str = "", *change: tuple[str, str], name: str = "small.toml") -> Path:
        """The board with something added or changed; `{models}` is the file of the models."""
        text = BOARD
        for old, new in change:
            assert old in text, old
            text = text.replace(old, new)
        path = self.tmp / name
        path.write_text((text + more).format(models=self.base.folder / "models.py", seconds=0.0), encoding="utf-8")
        return path

    def defense(self, name: str) -> Path:
        """The board with a further defense, under its own name."""
        return self.board(f'\n[[defense]]\nname = "{{models}}:{name}"\nlabel = "{name}"\n')

    def attack(self, name: str) -> Path:
        """The board with a further attack, under its own name, on the linear defense."""
        return self.board(f'\n[[attack]]\nname = "{{models}}:{name}"\nlabel = "{name}"\non = "linear"\n')

    def copy(self, which: str = "reference") -> Path:
        """A copy of the results of the base of that name."""
        out = self.tmp / "out"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(self.base.folder / which, out)
        return out

    def run(self, board: Path, out: Path, *more: object) -> Told:
        """`purebench run` with its cells in this process, which has imported everything."""
        return run_command("run", board, "--out", out, *_HERE, *more)

    def plainly(self, board: Path, out: Path, *more: object) -> Told:
        """`purebench run` as it is typed: cells are run in a worker process."""
        return run_command("run", board, "--out", out, *more)

    def forked(self, board: Path, out: Path, *conditions: Sequence[object], signals: Sequence[Any] = ()) -> Told:
        """`purebench run`, cells and all in a process of its own, under conditions; see `faults.driver`."""
        job = {"argv": ["run", str(board), "--out", str(out), *_HERE], "conditions": conditions, "signals": signals}
        return self.base.driver(job)[0]

    def tried(self, board: Path, out: Path, *names: str, errors: Iterable[tuple[str, str]] = ()) -> Outcome:
        """Run in this process on finished results: what came of it, to be judged as it is."""
        kept = finished(out) if out.is_dir() else {}
        return Outcome(self.run(board, out), names, folder=out, kept=kept, errors=tuple(errors))


def trained(ground: Ground) -> tuple[Path, Path]:
    """A board on a trained network, "trained", and a copy of its weights; see --weights-root."""
    from defenses.zoo.weight_paths import find_weights

    source = find_weights("undefended", "digits")
    folder = ground.tmp / "weights/digits"
    folder.mkdir(parents=True)
    shutil.copy(source, folder)
    shutil.copy(source.with_suffix(".json"), folder)
    changes = ('"{models}:linear"', '"undefended"'), ('label = "linear"', 'label = "trained"')
    return ground.board("", *changes, name="trained.toml"), folder / source.name


def finished(folder: Path) -> Runs:
    """The cells of a folder that are whole."""
    from bench.store.parts import damage, stored

    return {k: line["run"] for k, (line, part) in stored(folder / "parts").items() if damage(part) is None}


def finished_but(folder: Path, part: Path) -> tuple[Runs, set[str]]:
    """What a fault of one whole part must leave, and the keys of that part's cells, which may be lost."""
    from bench.store.parts import read_lines

    lost = {line["key"] for line in read_lines(part)}
    kept = {k: run for k, run in finished(folder).items() if k not in lost}
    assert kept
    assert lost
    return kept, lost


def nothing_written(folder: Path) -> None:
    """A results folder for which work was refused is not there."""
    assert not folder.exists(), sorted(folder.rglob("*"))


def settle(base: Base, outcome: Outcome) -> None:
    """What must hold after every fault: told, mended, equal, nothing computed twice."""
    if outcome.told is not None:
        _told(outcome.told, outcome)
    if outcome.folder is None:
        return
    if outcome.board is not None:
        mended = run_command("run", outcome.board, "--out", outcome.folder, *_HERE)
        assert "Traceback" not in mended.stderr, mended.stderr
        assert mended.code == (2 if outcome.errors else 0), mended.stderr
    after = finished(outcome.folder)
    again = {k for k, run in outcome.kept.items() if after.get(k) != run}
    assert not again, f"{len(again)} of {len(outcome.kept)} finished cells were lost or computed again"
    same(outcome.reference or base.reference, outcome.folder, outcome.errors)


def _told(told: Told, outcome: Outcome) -> None:
    assert told.code == outcome.code, (told.code, told.stderr, told.stdout)
    assert "Traceback" not in told.stderr, told.stderr
    assert "\x1b" not in told.stderr + told.stdout
    if outcome.names:
        fitting = [x for x in told.problems() if all(n in x for n in outcome.names)]
        assert fitting, f"no line names {outcome.names}:\n{told.stderr[-3000:]}"
