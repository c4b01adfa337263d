"""Fit a detector on training images, calibrate it on validation images, and cache slow results."""

from __future__ import annotations

import hashlib
import time
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from defenses.core.defense import Classifier
from defenses.core.detector import Detector, Guard, calibrated, check_fpr, clean_scores
from defenses.data.dataset import dataset_info, load_dataset
from defenses.utils.errors import UserError
from defenses.utils.files import write_whole
from defenses.utils.identity import identity
from defenses.utils.paths import cache_folder

_SLOW = 5.0  # seconds: faster results are not cached
_VERSION = "1"  # raise it when functions outside the detectors' classes change: digests do not cover them
_SCORES = "clean scores"  # name beside the detector's buffers


def guarded_by(
    detector: Detector, classifier: Classifier, dataset: str, fpr: object, *, data_root: str | Path | None = None
) -> Guard:
    """Return the guard of a detector, fitted and calibrated on a data set.

    The detector's buffers and its scores of clean images are cached if they took more than five seconds, under a digest
    of detector, classifier and data, so that the processes of a run and other thresholds do not repeat the work.

    Args:
        detector: as built.
        classifier: see `Guard`.
        dataset: name of a data set.
        fpr: share of clean images that it suspects.
        data_root: folder of data sets; None: see `defenses.utils.paths.data_root`.

    Raises:
        UserError: the data set has no validation images, or no training images to learn from, or too few for `fpr`.
    """
    info = dataset_info(dataset, root=data_root)
    for split, why in (("validation", "is calibrated on"), *([("train", "learns from")] if detector.learns else [])):
        if not info.splits.get(split):
            name = type(detector).__name__
            raise UserError(f"the detector {name} {why} {split} images, and {dataset} has none; add them to it")
    share = check_fpr(fpr, info.splits["validation"])
    file = _cache_file(detector, classifier, info.revision)
    tensors = _read(file) if file is not None else None
    if tensors is None:
        begun = time.perf_counter()
        tensors = _fit_and_score(detector, classifier, dataset, data_root)
        if file is not None and time.perf_counter() - begun > _SLOW:
            _write(file, tensors)
    for name, value in tensors.items():
        if name != _SCORES:
            detector.register_buffer(name, value)
    return calibrated(detector, classifier, tensors[_SCORES], fpr=share)


def _fit_and_score(
    detector: Detector, classifier: Classifier, dataset: str, data_root: str | Path | None
) -> dict[str, Tensor]:
    """Fit a detector, and return its buffers and its scores of validation images."""
    if detector.learns:
        train = load_dataset(dataset, "train", root=data_root)
        detector.fit(train.x, train.y, classifier)
    validation = load_dataset(dataset, "validation", root=data_root)
    scores = clean_scores(detector, validation.x, classifier)
    return {_SCORES: scores, **dict(detector.named_buffers(recurse=False))}


def _cache_file(detector: Detector, classifier: Classifier, revision: str) -> Path | None:
    """Return the file of the cache; None if a digest does not cover detector and classifier completely."""
    parts = [identity(detector), identity(classifier)]
    if not all(part.complete for part in parts):
        return None
    text = "\n".join([_VERSION, *(part.digest for part in parts), revision])
    return cache_folder() / "detectors" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.safetensors"


def _read(file: Path) -> dict[str, Tensor] | None:
    """Return the cached tensors; None if they are missing or damaged."""
    try:
        tensors = load(file.read_bytes())
    except (OSError, SafetensorError):
        return None
    return tensors if _SCORES in tensors else None


def _write(file: Path, tensors: dict[str, Tensor]) -> None:
    with suppress(OSError, UserError):  # without the file, the next run computes it again
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, save({n: v.contiguous() for n, v in tensors.items()}), "")
