"""Files that go to the nodes with a run, and their names there: the user's code, weights, small data.

They lie below `files/` of the run's package by their absolute paths, and weights below `weights/` as in a folder of
weights. Ray keeps the package once a node, under a hash of its contents.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from bench.execution.plan import RunPlan
from bench.execution.sources import Sources
from bench.execution.workers.messages import Certified, Computed, Message
from bench.execution.workers.session import WorkerSettings
from bench.execution.workers.tasks import Task
from bench.spec.cell import PRECOMPUTED, Cell, DefenseRef
from defenses.data.dataset import clean_name, data_root
from defenses.data.sources.corrupted import parts_of
from defenses.data.sources.files import files_of
from defenses.utils.hints import note
from defenses.utils.json_values import JsonView
from defenses.utils.text import counted
from defenses.zoo.composition import renamed
from defenses.zoo.weight_paths import chosen_roots, weight_roots

_SMALL = 100_000_000  # bytes of a data set that goes with the run
_LARGEST = 400_000_000  # bytes of a package
_FILES, _WEIGHTS = "files", "weights"
_OF_RAY = ".rayignore"  # names files that Ray leaves out of a package


class RunFiles(NamedTuple):
    """Files that go with a run, by their path in its package; and True if the data set's own are all among them."""

    files: dict[str, Path]
    has_data: bool


def files_of_run(plan: RunPlan) -> RunFiles:
    """Return the files that go with a run; those that are too large are told."""
    data = _placed(_small_data(plan))
    found = _weights(plan) | _placed(_named(plan)) | data
    total, chosen, left_out = 0, dict[str, Path](), list[Path]()
    for where, path in sorted(found.items(), key=lambda pair: pair[1].stat().st_size):
        total += path.stat().st_size
        if total <= _LARGEST:
            chosen[where] = path
        else:
            left_out.append(path)
    if left_out:
        first, count = left_out[0], counted(len(left_out), "file")
        which, they = (f"{first} is", "it") if len(left_out) == 1 else (f"{count}, as {first}, are", "they")
        note(f"{which} too large to go with the run; {they} must lie on the nodes")
    return RunFiles(dict(sorted(chosen.items())), bool(data) and data.keys() <= chosen.keys())


def write_package(files: dict[str, Path], folder: Path) -> None:
    """Write the package of a run: copies of its files."""
    for where, path in files.items():
        if path.name == _OF_RAY:
            continue
        target = folder / where
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path.expanduser()))


def _placed(paths: Iterable[Path]) -> dict[str, Path]:
    return {f"{_FILES}{path}": path for path in map(_absolute, paths)}


def _named(plan: RunPlan) -> Iterator[Path]:
    """Yield the files of the user's code, of precomputed images and of the index list."""
    sources, images, seen = Sources(), plan.images, set()
    for cell in plan.pending:
        if (names := (cell.defense.title, cell.surrogate and cell.surrogate.title, cell.attack.name)) not in seen:
            seen.add(names)
            yield from sources.files(cell)
            if cell.attack.is_precomputed:
                yield Path(cell.attack.name.removeprefix(PRECOMPUTED)).expanduser()
    if (indices := Path(images.indices).expanduser()).is_file():
        yield indices


def _small_data(plan: RunPlan) -> list[Path]:
    """Return the files of the data set; none if it is too large."""
    data = files_of(plan.images.dataset, data_root(plan.options.data_root or plan.images.root))
    return data if sum(path.stat().st_size for path in data) <= _SMALL else []


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
        root: the driver's folder of data sets; "": the data set has not gone with the run.
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
        images, options = settings.images, settings.options
        return replace(
            settings,
            images=images._replace(dataset=self._data(images.dataset), indices=self.moved(images.indices), root=None),
            options=replace(options, data_root=self.data_root(options.data_root or images.root), weights_root=None),
        )

    def weights(self, chosen: Path | None) -> str:
        """Return the folders of weights for PUREBENCH_WEIGHTS: that which went with the run, then the node's.

        Args:
            chosen: the one that the run names; None: it names none.
        """
        gone = self._if_here(self.package / _WEIGHTS)
        return os.pathsep.join(map(str, [*([gone] if gone else []), *chosen_roots(self._if_here(chosen))]))

    def data_root(self, chosen: Path | None) -> Path | None:
        """Return the folder of data sets; None: this node's own.

        Args:
            chosen: the one that the run names; None: it names none.
        """
        here = Path(self.moved(self.root))
        return here if self.root and here.is_relative_to(self.package) else self._if_here(chosen)

    def _if_here(self, folder: Path | None) -> Path | None:
        """Return a folder that the driver names, if this node has it too."""
        there = None if folder is None else Path(self.folder, folder.expanduser())
        return there if there is not None and there.is_dir() else None

    def _data(self, name: str) -> str:
        """Return the name of a data set here; of a folder, only some other file may have gone with the run."""
        return name if not self.root and clean_name(name).startswith("folder:") else self.moved(name)

    def task(self, task: Task) -> Task:
        """Return a task with the names of this node."""
        return replace(task, cell=self._cell(task.cell))

    def _cell(self, cell: Cell) -> Cell:
        return replace(
            cell,
            defense=self._defense(cell.defense),
            surrogate=None if cell.surrogate is None else self._defense(cell.surrogate),
            attack=replace(cell.attack, name=self.moved(cell.attack.name)),
            data=replace(cell.data, name=self._data(cell.data.name)),
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
        """Return a message of a worker with the driver's paths in the line of a result, or in a certificate."""
        match message:
            case Computed(result=result):
                result.line = self._told(result.line)
            case Certified(task, certificate):
                return Certified(task, self._told(certificate))
        return message

    def _told(self, record: Any) -> Any:
        return json.loads(json.dumps(record).replace(f"{self.package}/{_FILES}", ""))
