"""Published checkpoints of other code as weights of ours: `import_weights` is the entry point."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defenses.errors import UserError, unknown

if TYPE_CHECKING:
    from torch import Tensor

FORMATS = {  # name -> what gives an `Imported` of a checkpoint's content, the file and the data set
    "hill-ebm": "defenses.importers.hill:energy",
    "hill-clf": "defenses.importers.hill:classifier",
}


@dataclass(frozen=True)
class Imported:
    """What a checkpoint holds, in our terms.

    Args:
        name: what the weights are called unless told otherwise.
        kind: kind of network.
        args: its arguments.
        tensors: its tensors by our names.
        recipe: how it was trained, as far as published.
    """

    name: str
    kind: str
    args: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    recipe: Mapping[str, Any]


def import_weights(form: str, file: Path, dataset: str, *, out: Path, name: str | None = None) -> Path:
    """Write a checkpoint as safetensors with its description; every tensor's name and shape must be as expected.

    Args:
        form: one of `FORMATS`.
        file: the checkpoint.
        dataset: the data set it was trained on.
        out: folder to write into, as `weights_io.cache_dir() / dataset`.
        name: what the weights are called; None: the format's own name.

    Returns:
        <out>/<name>.safetensors.

    Raises:
        UserError: unknown format or data set; a file that is no such checkpoint, with the first mismatch; weights of
            that name are there already.
    """
    from bench.data import dataset_info
    from defenses.files import make_folder
    from defenses.networks import build_network
    from defenses.weights_io import put_tensors, save_network

    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    info = dataset_info(dataset)
    content = read_checkpoint(file)
    module, function = FORMATS[form].split(":")
    convert: Callable[..., Imported] = getattr(importlib.import_module(module), function)
    found = convert(content, file, info)
    network = build_network(found.kind, **found.args)
    put_tensors(network, found.tensors, file)
    target = Path(out) / f"{name or found.name}.safetensors"
    if target.exists():
        raise UserError(f"{target} is there already; remove it, or choose --name or --out")
    make_folder(target.parent)
    source = {"format": form, "file": file.name, "file_sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    save_network(target, network, found.kind, found.args, {**found.recipe, "dataset": dataset, "imported": source})
    return target


def read_checkpoint(file: Path) -> dict[str, Tensor]:
    """The tensors of a file of `torch.save`, without running code that it may hold.

    Raises:
        UserError: there is no such file, it holds something else than tensors by name, or a value is not finite.
    """
    import torch

    if not file.is_file():
        raise UserError(f"there is no file {file}")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the damaged part makes it raise
        what = type(error).__name__
        raise UserError(f"{file} cannot be read as a checkpoint of tensors alone ({what})") from None
    if not isinstance(content, dict) or not content:
        raise UserError(f"{file} holds no tensors by name but {type(content).__name__}")
    for key, value in content.items():
        if not isinstance(value, torch.Tensor):
            raise UserError(f'{file}: "{key}" is no tensor but {type(value).__name__}; give the state dict alone')
        if not torch.isfinite(value).all():
            raise UserError(f'{file}: tensor "{key}" has values that are not finite')
    return content
