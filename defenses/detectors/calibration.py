"""A detector fitted on training images and calibrated on validation images; what took long is kept."""

from __future__ import annotations

import hashlib
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from defenses.utils.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from defenses.core.defense import Classifier
    from defenses.core.detector import Detector, Guard

_LONG = 5.0  # seconds: what took less is done again
_VERSION = "1"  # counts up when functions outside the classes of detectors, which digests do not see, change
_SCORES = "clean scores"  # beside the detector's buffers


def guarded_by(
    detector: Detector, classifier: Classifier, dataset: str, fpr: object, *, data_root: str | Path | None = None
) -> Guard:
    """A detector at work on a data set.

    What it has learnt and its scores of clean images are kept in the cache if they took more than five seconds, under a
    digest of detector, classifier and data, so that the processes of a run and other thresholds do not repeat them.

    Args:
        detector: as built.
        classifier: see `Guard`.
        dataset: name of a data set.
        fpr: share of clean images that it suspects.
        data_root: where data sets lie; None: where `defenses.utils.paths.data_root` says.

    Raises:
        UserError: the data set has no validation images, or no training images to learn from, or too few for `fpr`.
    """
    from defenses.core.detector import calibrated, check_fpr
    from defenses.data.dataset import dataset_info

    info = dataset_info(dataset, root=data_root)
    for split, why in (("validation", "is calibrated on"), *([("train", "learns from")] if detector.learns else [])):
        if not info.splits.get(split):
            name = type(detector).__name__
            raise UserError(f"the detector {name} {why} {split} images, and {dataset} has none; add them to it")
    share = check_fpr(fpr, info.splits["validation"])
    file = _file(detector, classifier, info.revision)
    kept = _read(file) if file is not None else None
    if kept is None:
        begun = time.perf_counter()
        kept = _made(detector, classifier, dataset, data_root)
        if file is not None and time.perf_counter() - begun > _LONG:
            _write(file, kept)
    for name, value in kept.items():
        if name != _SCORES:
            detector.register_buffer(name, value)
    return calibrated(detector, classifier, kept[_SCORES], fpr=share)


def _made(detector: Detector, classifier: Classifier, dataset: str, data_root: str | Path | None) -> dict[str, Tensor]:
    from defenses.core.detector import clean_scores
    from defenses.data.dataset import load_dataset

    if detector.learns:
        train = load_dataset(dataset, "train", root=data_root)
        detector.fit(train.x, train.y, classifier)
    held = load_dataset(dataset, "validation", root=data_root)
    scores = clean_scores(detector, held.x, classifier)
    return {_SCORES: scores, **dict(detector.named_buffers(recurse=False))}


def _file(detector: Detector, classifier: Classifier, revision: str) -> Path | None:
    """Where it is kept; None where what it depends on cannot be seen whole."""
    from defenses.utils.identity import identity
    from defenses.utils.paths import cache_dir

    parts = [identity(detector), identity(classifier)]
    if not all(complete for _, complete in parts):
        return None
    said = "\n".join([_VERSION, *(digest for digest, _ in parts), revision])
    return cache_dir().parent / "detectors" / f"{hashlib.sha256(said.encode()).hexdigest()[:32]}.safetensors"


def _read(file: Path) -> dict[str, Tensor] | None:
    """What is kept; None where there is nothing, or nothing whole."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        found = load(file.read_bytes())
    except (OSError, SafetensorError):
        return None
    return found if _SCORES in found else None


def _write(file: Path, kept: dict[str, Tensor]) -> None:
    from safetensors.torch import save

    from defenses.utils.files import write_whole

    with suppress(OSError, UserError):  # it is made again next time
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, save({n: v.contiguous() for n, v in kept.items()}), "")
