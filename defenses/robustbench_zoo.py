"""RobustBench's models by name, "robustbench:Wong2020Fast".

What there is, is read without torch from its source files; its own `load_model` builds, downloads and loads them.
Checkpoints are read with `weights_only`.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import os
import pickle
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defenses.errors import UserError, unknown

if TYPE_CHECKING:
    from torch import nn

    from defenses.base import Classifier

SCHEME = "robustbench"
DATASETS = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}  # -> classes
THREATS = ("Linf", "L2", "corruptions")
_PIXELS = {"Crop288": 288}  # of ImageNet's preprocessings; all others end at 224
_PARAMETERS = ("threat_model", "trained_on")
_UNSAFE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


@dataclass(frozen=True)
class Entry:
    """A model of the zoo.

    Args:
        name: its id, as "Wong2020Fast".
        dataset: "cifar10", "cifar100" or "imagenet".
        threat_model: "Linf", "L2" or "corruptions".
        ids: of its files on Google Drive, one per network of an ensemble; empty: timm or torchvision hosts it.
        preprocessing: of ImageNet, where the zoo names one.
    """

    name: str
    dataset: str
    threat_model: str
    ids: tuple[str, ...]
    preprocessing: str | None = None

    @property
    def folder(self) -> Path:
        """Where its files lie under a weights folder."""
        return Path(SCHEME) / self.dataset / self.threat_model

    @property
    def files(self) -> tuple[str, ...]:
        """Their names."""
        if len(self.ids) == 1:
            return (f"{self.name}.pt",)
        return tuple(f"{self.name}.pt_m{i}.pt" for i in range(len(self.ids)))


def find(name: str, dataset: str, given: Mapping[str, Any]) -> Entry:
    """The model of a name.

    Args:
        name: "robustbench:" and an id.
        dataset: the data set it is for; corrupted ones ("cifar10-c/fog/5") take the models of the clean one.
        given: threat_model ("Linf" unless given), and trained_on: the data set that the zoo lists the model under,
            where `dataset` is one of the user's own.

    Raises:
        UserError: unknown parameter, data set, threat model or id; a preprocessing that is not the model's.
    """
    for key in given:
        if key not in _PARAMETERS:
            raise unknown(f"parameter of {name}", key, _PARAMETERS)
    trained_on = given.get("trained_on") or dataset.partition("/")[0].removesuffix("-c").removesuffix("-3dcc")
    threat = str(given.get("threat_model", "Linf")).removesuffix("_3d")
    if trained_on not in DATASETS:
        raise UserError(f'{name} is for {", ".join(DATASETS)}, not for "{trained_on}"; name the data set it is for')
    listed = _zoo(trained_on)
    if threat not in listed:
        raise unknown(f"threat model of RobustBench for {trained_on}", threat, listed)
    local = name.partition(":")[2]
    if local not in listed[threat]:
        elsewhere = [t for t in listed if local in listed[t]]
        if elsewhere:
            raise UserError(f'{name} is not in the zoo of {threat}; give it threat_model = "{elsewhere[0]}"')
        raise unknown(f"model of RobustBench for {trained_on} {threat}", local, listed[threat])
    entry = listed[threat][local]
    kind, _, given_preprocessing = dataset.partition("/")
    if kind == "imagenet" and entry.preprocessing not in (None, given_preprocessing or "Res256Crop224"):
        raise UserError(f'{name} needs other images; give dataset = "imagenet/{entry.preprocessing}"')
    return entry


def names(dataset: str, threat_model: str) -> list[str]:
    """The ids of the zoo."""
    return list(_zoo(dataset).get(threat_model, {}))


@functools.cache
def _zoo(dataset: str) -> dict[str, dict[str, Entry]]:
    """The zoo's models of a data set by threat model."""
    from bench.doctor import require
    from bench.suites.source import package_folder, parse

    require("robustbench")
    folder = package_folder("robustbench")
    assert folder is not None
    try:
        return _listed(dataset, parse(folder / "model_zoo" / f"{dataset}.py"))
    except (AssertionError, KeyError, ValueError, StopIteration) as error:
        raise UserError("this RobustBench lists its models in another way than 1.1.1; install that version") from error


def _listed(dataset: str, tree: ast.Module) -> dict[str, dict[str, Entry]]:
    """The models that a file of the zoo lists."""
    values = {
        target.id: node.value.args[0]
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and node.value.args
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found: dict[str, dict[str, Entry]] = {}
    for threat, listed in _pairs(next(value for name, value in values.items() if name.endswith("_models"))):
        assert isinstance(threat, ast.Attribute)
        assert isinstance(listed, ast.Name)
        models = [_entry(dataset, threat.attr, *pair) for pair in _pairs(values[listed.id])]
        found[threat.attr] = {m.name: m for m in models}
    return found


def _pairs(table: ast.expr) -> list[tuple[ast.expr, ast.expr]]:
    assert isinstance(table, ast.List)
    return [(pair.elts[0], pair.elts[1]) for pair in table.elts if isinstance(pair, ast.Tuple)]


def _entry(dataset: str, threat: str, name: ast.expr, facts: ast.expr) -> Entry:
    assert isinstance(facts, ast.Dict)
    keys = [ast.literal_eval(k) for k in facts.keys if k is not None]
    known = {k: ast.literal_eval(v) for k, v in zip(keys, facts.values, strict=True) if k != "model"}
    ids = known.get("gdrive_id") or ()
    listed = (ids,) if isinstance(ids, str) else tuple(ids)
    return Entry(ast.literal_eval(name), dataset, threat, listed, known.get("preprocessing"))


def fingerprint(
    name: str, dataset: str, given: Mapping[str, Any], *, weights_root: str | Path | None = None
) -> dict[str, Any]:
    """Everything that the outputs of a model depend on; its files are downloaded if they are nowhere.

    Looks for `<folder>/robustbench/<dataset>/<threat model>/<id>.pt` in the folders of `defenses.weights_io`.

    Raises:
        UserError: see `find`; or the files are not at hand and cannot be downloaded.
    """
    from importlib.metadata import version

    entry = find(name, dataset, given)
    files = _files(entry, weights_root)
    return {
        "name": name,
        "dataset": entry.dataset,
        "threat_model": entry.threat_model,
        "robustbench": version("robustbench"),
        "weights": {f.name: _sha(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files},
    }


def load(name: str, dataset: str, given: Mapping[str, Any], *, weights_root: str | Path | None = None) -> Classifier:
    """A model of the zoo as a deterministic defense, on the CPU.

    Raises:
        UserError: see `fingerprint`; or a file is damaged, of another model, or holds more than tensors.
    """
    from defenses.base import Classifier

    entry = find(name, dataset, given)
    files = _files(entry, weights_root)
    try:
        network = _build(entry, files[0].parents[2])
    except Exception as error:
        places = ", ".join(map(str, files))
        raise UserError(f"{places} cannot be loaded: {_reason(error)}; mend it or remove it") from error
    pixels = 32 if entry.dataset != "imagenet" else _PIXELS.get(entry.preprocessing or "", 224)
    return Classifier(network, num_classes=DATASETS[entry.dataset], input_shape=(3, pixels, pixels))


def _files(entry: Entry, root: str | Path | None) -> list[Path]:
    """The files of a model, all in one folder; downloaded to the cache if they are nowhere."""
    from defenses.weights_io import cache_dir, weight_roots

    if not entry.ids:
        return [_hosted(entry)]
    target = cache_dir() / entry.folder
    for folder in [place / entry.folder for place in weight_roots(root)]:
        if all((folder / file).is_file() for file in entry.files):
            return [folder / file for file in entry.files]
    _download(entry, target)
    return [target / file for file in entry.files]


def _download(entry: Entry, target: Path) -> None:
    """Let RobustBench download and load a model elsewhere: only files that it could load come to their place."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=target) as scratch:
        try:
            _build(entry, Path(scratch))
            arrived = Path(scratch) / entry.dataset / entry.threat_model
            for file in entry.files:
                shutil.move(arrived / file, target / file)
        except (Exception, SystemExit) as error:
            places = ", ".join(
                f"https://drive.google.com/file/d/{i} as {target / file}"
                for i, file in zip(entry.ids, entry.files, strict=True)
            )
            raise UserError(
                f"robustbench:{entry.name} could not be downloaded ({_reason(error)}); save by hand {places}"
            ) from error


def _hosted(entry: Entry) -> Path:
    """The file of a model that timm or torchvision downloads to torch's own folder, by its own half-file rules."""
    from urllib.parse import urlparse

    from torch.hub import get_dir

    with _library():
        import robustbench.utils
        import timm
        from torchvision.models import ResNet50_Weights

        assert robustbench.utils.timm is timm  # importing it registers its models
        local = f"{entry.name}_{entry.dataset}_{entry.threat_model}".lower().replace("-", "_")
        known = timm.get_pretrained_cfg(local) if timm.is_model(local) else ResNet50_Weights.IMAGENET1K_V1
        url = str(getattr(known, "url", ""))
    path = Path(get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if not path.is_file():
        try:
            _build(entry, Path(tempfile.gettempdir()))
        except Exception as error:
            raise UserError(
                f"robustbench:{entry.name} could not be downloaded ({_reason(error)}); save {url} by hand as {path}"
            ) from error
    return path


def _build(entry: Entry, model_dir: Path) -> nn.Module:
    """What RobustBench's load_model gives, without effect on global generators."""
    import torch

    from defenses.base import seeded_globals

    with _library(), seeded_globals(0, torch.device("cpu")):
        from robustbench.utils import load_model

        network: nn.Module = load_model(
            entry.name, model_dir=model_dir, dataset=entry.dataset, threat_model=entry.threat_model
        )
    return network.eval()


@contextlib.contextmanager
def _library() -> Iterator[None]:
    """What RobustBench prints goes to stderr, its warnings nowhere; nothing is unpickled that is no tensor."""
    unsafe = os.environ.pop(_UNSAFE, None)
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if unsafe is not None:
            os.environ[_UNSAFE] = unsafe


def _reason(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, pickle.UnpicklingError):
        return "it holds more than tensors, or is no checkpoint, and is not unpickled: that could run code"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


@functools.cache
def _sha(path: str, size: int, changed: int) -> str:  # noqa: ARG001 a file that has changed is hashed again
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
