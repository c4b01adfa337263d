"""Index of RobustBench's zoo, read without torch from its source files."""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from defenses.utils.errors import UserError, unknown
from defenses.utils.introspection import package_folder, parse
from defenses.zoo.cards import refuse_around

SCHEME = "robustbench"
DATASETS = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}  # number of classes
_PARAMETERS = ("threat_model", "trained_on")


@dataclass(frozen=True)
class ZooEntry:
    """A model of the zoo.

    Args:
        name: its id, as "Wong2020Fast".
        dataset: "cifar10", "cifar100" or "imagenet".
        threat_model: "Linf", "L2" or "corruptions".
        ids: of its files on Google Drive, one per network of an ensemble; empty if timm or torchvision hosts it.
        preprocessing: of ImageNet, if the zoo names one.
    """

    name: str
    dataset: str
    threat_model: str
    ids: tuple[str, ...]
    preprocessing: str | None = None

    @property
    def folder(self) -> Path:
        """Return the folder of its files below a folder of weights."""
        return Path(SCHEME) / self.zoo_folder

    @property
    def zoo_folder(self) -> Path:
        """Return the folder of its files below a `model_dir` of RobustBench."""
        return Path(self.dataset) / self.threat_model

    @property
    def files(self) -> tuple[str, ...]:
        """Return the names of its files."""
        if len(self.ids) == 1:
            return (f"{self.name}.pt",)
        return tuple(f"{self.name}.pt_m{i}.pt" for i in range(len(self.ids)))


def find(name: str, dataset: str, params: Mapping[str, object]) -> ZooEntry:
    """Return the entry of a model.

    Args:
        name: "robustbench:" and an id.
        dataset: name of the data set; corrupted ones ("cifar10-c/fog/5") have the models of the clean one.
        params: threat_model (default "Linf"), and trained_on: the data set under which the zoo lists the model, for a
            user-defined `dataset`.

    Raises:
        UserError: unknown parameter, data set, threat model or id; a preprocessing other than the model's.
    """
    refuse_around(name, params)
    for key in params:
        if key not in _PARAMETERS:
            raise unknown(f"parameter of {name}", key, _PARAMETERS)
    trained_on = params.get("trained_on") or dataset.partition("/")[0].removesuffix("-c").removesuffix("-3dcc")
    threat = str(params.get("threat_model", "Linf")).removesuffix("_3d")
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
    kind, _, preprocessing = dataset.partition("/")
    if kind == "imagenet" and entry.preprocessing not in (None, preprocessing or "Res256Crop224"):
        raise UserError(f'{name} needs other images; give dataset = "imagenet/{entry.preprocessing}"')
    return entry


def names(dataset: str, threat_model: str) -> list[str]:
    """Return the ids of the zoo for a data set and a threat model."""
    return list(_zoo(dataset).get(threat_model, {}))


def lists(name: str) -> bool:
    """Return True if the zoo has a model of this id for any data set; False if RobustBench cannot be used."""
    try:
        return any(name in listed for dataset in DATASETS for listed in _zoo(dataset).values())
    except UserError:
        return False


@functools.cache
def _zoo(dataset: str) -> dict[str, dict[str, ZooEntry]]:
    """Return the zoo's models of a data set by threat model and id."""
    folder = package_folder("robustbench")
    if folder is None:
        raise UserError("robustbench is not installed; pip install robustbench")
    try:
        return _listed(dataset, parse(folder / "model_zoo" / f"{dataset}.py"))
    except (AssertionError, KeyError, ValueError, StopIteration) as error:
        raise UserError("this RobustBench lists its models in another way than 1.1.1; install that version") from error


def _listed(dataset: str, tree: ast.Module) -> dict[str, dict[str, ZooEntry]]:
    """Return the models that a file of the zoo lists, by threat model and id."""
    values = {
        target.id: node.value.args[0]
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and node.value.args
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    entries: dict[str, dict[str, ZooEntry]] = {}
    for threat, listed in _pairs(next(value for name, value in values.items() if name.endswith("_models"))):
        assert isinstance(threat, ast.Attribute)
        assert isinstance(listed, ast.Name)
        models = [_entry(dataset, threat.attr, *pair) for pair in _pairs(values[listed.id])]
        entries[threat.attr] = {m.name: m for m in models}
    return entries


def _pairs(table: ast.expr) -> list[tuple[ast.expr, ast.expr]]:
    assert isinstance(table, ast.List)
    return [(pair.elts[0], pair.elts[1]) for pair in table.elts if isinstance(pair, ast.Tuple)]


def _entry(dataset: str, threat: str, name: ast.expr, facts: ast.expr) -> ZooEntry:
    assert isinstance(facts, ast.Dict)
    keys = [ast.literal_eval(k) for k in facts.keys if k is not None]
    values = {k: ast.literal_eval(v) for k, v in zip(keys, facts.values, strict=True) if k != "model"}
    ids = values.get("gdrive_id") or ()
    listed = (ids,) if isinstance(ids, str) else tuple(ids)
    return ZooEntry(ast.literal_eval(name), dataset, threat, listed, values.get("preprocessing"))
