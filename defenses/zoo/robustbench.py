"""RobustBench's models by name, "robustbench:Wong2020Fast": built, downloaded and loaded by its `load_model`.

Checkpoints are read with `weights_only`.
"""

from __future__ import annotations

import functools
import hashlib
import pickle
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

from defenses.utils.errors import UserError
from defenses.utils.files import disk_errors
from defenses.utils.json_values import Json, JsonView
from defenses.utils.paths import cache_dir
from defenses.zoo.robustbench_index import DATASETS, ZooEntry, find
from defenses.zoo.weight_paths import chosen_roots, weight_roots

if TYPE_CHECKING:
    from torch import nn

    from defenses.core.defense import Classifier

_PIXELS = {"Crop288": 288}  # by ImageNet preprocessing; all others give 224


def fingerprint(name: str, dataset: str, params: JsonView, *, weights_root: str | Path | None = None) -> Json:
    """Return all that the outputs of a model depend on; missing files are downloaded.

    Looks for `<folder>/robustbench/<dataset>/<threat model>/<id>.pt` in the folders of `weight_roots`, and for
    `<folder>/<dataset>/<threat model>/<id>.pt` in those of `chosen_roots`, as in a `model_dir` of RobustBench.

    Args:
        name: "robustbench:" and an id.
        dataset: name of the data set.
        params: see `robustbench_index.find`.
        weights_root: folder of weights to look in first.

    Raises:
        UserError: see `find`; or missing files cannot be downloaded.
    """
    from importlib.metadata import version

    entry = find(name, dataset, params)
    files = _files(entry, weights_root)
    return {
        "name": name,
        "dataset": entry.dataset,
        "threat_model": entry.threat_model,
        "robustbench": version("robustbench"),
        "weights": {f.name: _sha(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files},
    }


def load(name: str, dataset: str, params: JsonView, *, weights_root: str | Path | None = None) -> Classifier:
    """Return a model of the zoo as a deterministic defense, on the CPU.

    Args:
        name: see `fingerprint`.
        dataset: see `fingerprint`.
        params: see `fingerprint`.
        weights_root: see `fingerprint`.

    Raises:
        UserError: see `fingerprint`; or a file is damaged, of another model, or holds more than tensors.
    """
    from defenses.core.defense import Classifier

    entry = find(name, dataset, params)
    files = _files(entry, weights_root)
    try:
        network = _build(entry, files[0].parents[2])
    except Exception as error:
        named = ", ".join(map(str, files))
        raise UserError(f"{named} cannot be loaded: {_reason(error)}; mend it or remove it") from error
    pixels = 32 if entry.dataset != "imagenet" else _PIXELS.get(entry.preprocessing or "", 224)
    return Classifier(network, num_classes=DATASETS[entry.dataset], input_shape=(3, pixels, pixels))


def _files(entry: ZooEntry, root: str | Path | None) -> list[Path]:
    """Return the files of a model, all in one folder; missing ones are downloaded to the cache."""
    if not entry.ids:
        return [_hosted(entry)]
    target = cache_dir() / entry.folder
    folders = [place / layout for place in chosen_roots(root) for layout in (entry.folder, entry.zoo_folder)]
    folders += [place / entry.folder for place in weight_roots(root)]
    for folder in folders:
        if all((folder / file).is_file() for file in entry.files):
            return [folder / file for file in entry.files]
    _download(entry, target)
    return [target / file for file in entry.files]


def _download(entry: ZooEntry, target: Path) -> None:
    """Let RobustBench download and load a model in a scratch folder, and keep files that it could load."""
    from filelock import FileLock

    with disk_errors(target, "repeat the command", "set XDG_CACHE_HOME to a folder of your own"):
        target.mkdir(parents=True, exist_ok=True)
    scratch = target / f".download-{entry.name}"
    place = hashlib.sha256(str(scratch.absolute()).encode()).hexdigest()[:20]
    with FileLock(Path(tempfile.gettempdir()) / f"purebench-{place}.lock"):  # outside the folders of models
        if all((target / file).is_file() for file in entry.files):
            return  # by another process meanwhile
        shutil.rmtree(scratch, ignore_errors=True)  # left by a killed process
        try:
            _build(entry, scratch)
            for file in entry.files:
                shutil.move(scratch / entry.dataset / entry.threat_model / file, target / file)
        except (Exception, SystemExit) as error:
            places = ", ".join(
                f"https://drive.google.com/file/d/{i} as {target / file}"
                for i, file in zip(entry.ids, entry.files, strict=True)
            )
            raise UserError(
                f"robustbench:{entry.name} could not be downloaded ({_reason(error)}); save by hand {places}"
            ) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _hosted(entry: ZooEntry) -> Path:
    """Return the file of a model that timm or torchvision downloads to torch's folder."""
    from torch.hub import get_dir

    from defenses.utils.isolation import robustbench_call

    with robustbench_call():
        import robustbench.utils
        import timm
        from torchvision.models import ResNet50_Weights

        assert robustbench.utils.timm is timm  # its import registers models in timm
        local = f"{entry.name}_{entry.dataset}_{entry.threat_model}".lower().replace("-", "_")
        weights = timm.get_pretrained_cfg(local) if timm.is_model(local) else ResNet50_Weights.IMAGENET1K_V1
        url = str(getattr(weights, "url", ""))
    path = Path(get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if not path.is_file():
        try:
            _build(entry, Path(tempfile.gettempdir()))
        except Exception as error:
            raise UserError(
                f"robustbench:{entry.name} could not be downloaded ({_reason(error)}); save {url} by hand as {path}"
            ) from error
    return path


def _build(entry: ZooEntry, model_dir: Path) -> nn.Module:
    """Return the network of RobustBench's `load_model`, without effect on global generators."""
    import torch

    from defenses.utils.isolation import robustbench_call, seeded_globals

    with robustbench_call(), seeded_globals(0, torch.device("cpu")):
        from robustbench.utils import load_model

        network: nn.Module = load_model(
            entry.name, model_dir=model_dir, dataset=entry.dataset, threat_model=entry.threat_model
        )
    return network.eval()


def _reason(error: BaseException) -> str:
    """Return an error as one line."""
    if isinstance(error, pickle.UnpicklingError):
        return "it holds more than tensors, or is no checkpoint, and is not unpickled: that could run code"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


@functools.cache
def _sha(path: str, _size: int, _changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
