"""Check of a node before it runs cells: the same purebench and attack libraries, and the same data."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

from bench.board.board import BoardImages
from bench.execution.workers.cluster.files import NodeFiles
from bench.execution.workers.session import WorkerSettings
from bench.store.environment import RunRecord, describe_run, source_digest, versions
from defenses.data.sources.registry import find_source
from defenses.utils.errors import UserError
from defenses.utils.names import is_plugin
from defenses.utils.paths import data_root

_IN_KEYS = ("purebench", "foolbox", "torchattacks", "pyautoattack", "autoattack", "robustbench")


@dataclass(frozen=True)
class NodeRequest:
    """Request of the driver to a node: to be able to run its cells.

    Args:
        settings: of the run, with the driver's names.
        versions: of packages that are part of keys.
        source: `source_digest` of purebench.
        revision: of the data.
        folder: the current folder of the driver.
        root: the driver's folder of data sets; "": the data set does not go with the run.
    """

    settings: WorkerSettings
    versions: Mapping[str, str]
    source: str
    revision: str
    folder: str
    root: str

    @property
    def files(self) -> NodeFiles:
        """Return the package of the run on this node: Ray makes it the current folder of its processes."""
        return NodeFiles(Path.cwd(), self.folder, self.root)


def request_of(settings: WorkerSettings, revision: str, *, has_data: bool) -> NodeRequest:
    """Return what this process, the driver, asks of nodes.

    Args:
        settings: of the run.
        revision: of the data.
        has_data: the files of the data set go with the run.
    """
    root = str(data_root(settings.options.data_root or settings.images.root).absolute()) if has_data else ""
    return NodeRequest(settings, _versions(), source_digest(), revision, str(Path.cwd()), root)


def _versions() -> dict[str, str]:
    return {name: version for name, version in versions().items() if name in _IN_KEYS}


def answer() -> None:
    """Answer, as a node does that has purebench."""


def examine(request: NodeRequest) -> tuple[RunRecord, str]:
    """Return the description of this node as of a run, and why it cannot run the cells; "" if it can."""
    files, settings = request.files, request.settings
    machine = describe_run(settings.threads, settings.options.workers, settings.options.device)
    with chdir(files.here):
        return machine, _other_code(request) or _other_data(files.settings(settings), request.revision)


def _other_code(request: NodeRequest) -> str:
    here = _versions()
    for name in _IN_KEYS:
        if here.get(name) != request.versions.get(name):
            there = request.versions.get(name, "none")
            return f"it has {name} {here.get(name, 'none')}, the driver {there}; install the same on all nodes"
    if source_digest() != request.source:
        return f"its purebench {here.get('purebench')} has other code than the driver's; install the same on all nodes"
    return ""


def _other_data(settings: WorkerSettings, revision: str) -> str:
    """Return why the data of a run are not those of the driver; code of the user is left to the workers."""
    images: BoardImages = settings.images
    if is_plugin(images.dataset) and not images.dataset.startswith(("folder:", "corrupted:", "hf:")):
        return ""
    try:
        source = find_source(images.dataset, data_root(settings.options.data_root))
        here = source.info().revision
        source.labels(images.split)  # reads their files
    except UserError as error:
        return str(error)
    except OSError as error:
        return f"{images.dataset} cannot be read ({error})"
    if here != revision:
        return f"its {images.dataset} is of revision {here}, the driver's of {revision}; copy the driver's files"
    return ""
