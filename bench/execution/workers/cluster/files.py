"""Files that go to the nodes with a run, and their names there: the user's code, weights, small data.

They lie below `files/` of the run's package by their absolute paths, and weights below `weights/` as in a folder of
weights. Ray keeps the package once a node, under a hash of its contents.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bench.execution.plan import RunPlan
from bench.execution.sources import Sources
from bench.execution.workers.messages import Computed, Message
from bench.execution.workers.session import WorkerSettings
from bench.execution.workers.tasks import Task
from bench.spec.cell import PRECOMPUTED, Cell, DefenseRef
from defenses.data.dataset import clean_name, data_root
from defenses.data.sources.corrupted import parts_of
from defenses.data.sources.files import files_of
from defenses.utils.hints import note
from defenses.utils.json_values import JsonView
from defenses.zoo.composition import renamed
from defenses.zoo.weight_paths import weight_roots

_SMALL = 100_000_000  # bytes of a data set that goes with the run
_LARGEST = 400_000_000  # bytes of a package
_FILES, _WEIGHTS = "files", "weights"


def files_of_run(plan: RunPlan) -> dict[str, Path]:
    """Return the files that go with a run, by their path in its package; those that are too large are told."""
    found = _weights(plan) | {f"{_FILES}{path}": path for path in map(_absolute, _named(plan))}
    total, chosen = 0, {}
    for where, path in sorted(found.items(), key=lambda pair: pair[1].stat().st_size):
        total += path.stat().st_size
        if total <= _LARGEST:
            chosen[where] = path
        else:
            note(f"{path} is too large to go with the run; it must lie on the nodes")
    return dict(sorted(chosen.items()))


def write_package(files: dict[str, Path], folder: Path) -> None:
    """Write the package of a run: copies of its files."""
    for where, path in files.items():
        target = folder / where
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path.expanduser()))


def _named(plan: RunPlan) -> Iterator[Path]:
    """Yield the files of the user's code, of precomputed images, of the index list and of a small data set."""
    sources, images, seen = Sources(), plan.images, set()
    for cell in plan.pending:
        if (names := (cell.defense.title, cell.surrogate and cell.surrogate.title, cell.attack.name)) not in seen:
            seen.add(names)
            yield from sources.files(cell)
            if cell.attack.is_precomputed:
                yield Path(cell.attack.name.removeprefix(PRECOMPUTED)).expanduser()
    if (indices := Path(images.indices).expanduser()).is_file():
        yield indices
    data = files_of(images.dataset, data_root(plan.options.data_root or images.root))
    if sum(path.stat().st_size for path in data) <= _SMALL:
        yield from data


def _weights(plan: RunPlan) -> dict[str, Path]:
    """Return the files of weights that the fingerprints of a run name, and those beside them, by path."""
    dataset, found = clean_name(plan.images.dataset), dict[str, Path]()
    if not re.fullmatch(r"[\w-]+", dataset):
        return {}
    models = {m.title: m for cell in plan.pending for m in (cell.defense, cell.surrogate) if m is not None}
    names = {name for model in models.values() for name in _weight_names(model.fingerprint)}
    for folder in reversed(weight_roots(plan.options.weights_root)):  # the first one counts
        for path in sorted((folder / dataset).rglob("*")):
            if path.is_file() and any(path.name == name or path.name.startswith(f"{name}.") for name in names):
                found[f"{_WEIGHTS}/{path.relative_to(folder).as_posix()}"] = path
    return found


def _weight_names(fingerprint: JsonView) -> Iterator[str]:
    yield from fingerprint.get("weights") or {}
    for part in fingerprint.get("around", ()):
        yield from _weight_names(part)


@dataclass(frozen=True)
class NodeFiles:
    """The package of a run on a node, and the names of its files there.

    Args:
        package: its folder.
        folder: the current folder of the driver.
        root: the driver's folder of data sets.
    """

    package: Path
    folder: str
    root: str

    @property
    def here(self) -> Path:
        """Return the driver's current folder, as far as it has gone with the run; else the package."""
        here = self.package / f"{_FILES}{self.folder}"
        return here if here.is_dir() else self.package

    def settings(self, settings: WorkerSettings) -> WorkerSettings:
        """Return the settings of a run with the folders and names of this node."""
        images, options, weights = settings.images, settings.options, self.package / _WEIGHTS
        return replace(
            settings,
            images=images._replace(dataset=self.moved(images.dataset), indices=self.moved(images.indices), root=None),
            options=replace(
                options,
                data_root=self.data_root(options.data_root or images.root),
                weights_root=weights if weights.is_dir() else _if_here(options.weights_root),
            ),
        )

    def data_root(self, chosen: Path | None) -> Path | None:
        """Return the folder of data sets; None: this node's own.

        Args:
            chosen: the one that the run names; None: it names none.
        """
        here = Path(self.moved(self.root))
        return here if here.is_relative_to(self.package) else _if_here(chosen)

    def task(self, task: Task) -> Task:
        """Return a task with the names of this node."""
        return replace(task, cell=self._cell(task.cell))

    def _cell(self, cell: Cell) -> Cell:
        return replace(
            cell,
            defense=self._defense(cell.defense),
            surrogate=None if cell.surrogate is None else self._defense(cell.surrogate),
            attack=replace(cell.attack, name=self.moved(cell.attack.name)),
            data=replace(cell.data, name=self.moved(cell.data.name)),
        )

    def _defense(self, defense: DefenseRef) -> DefenseRef:
        return replace(defense, name=self.moved(defense.name), params=renamed(defense.params, self.moved))

    def moved(self, name: str) -> str:
        """Return a name, as "file.py:Class" or "folder:path", with the path that its file has here."""
        absolute = re.search(r"(?:^|:)([/~].*)", name)
        if absolute is None:
            return name
        path = re.split(r"(?<=\.py):|\?", absolute[1])[0]
        if parts_of(name):
            path = path.rsplit("/", 2)[0]
        here = f"{self.package}/{_FILES}{_absolute(Path(path))}"
        if not os.path.exists(here):
            return name
        return name[: absolute.start(1)] + here + absolute[1][len(path) :]

    def told(self, message: Message) -> Message:
        """Return a message of a worker with the driver's paths in the line of a result."""
        if isinstance(message, Computed):
            line = json.dumps(message.result.line).replace(f"{self.package}/{_FILES}", "")
            message.result.line = json.loads(line)
        return message


def _if_here(folder: Path | None) -> Path | None:
    return folder if folder is not None and folder.is_dir() else None
