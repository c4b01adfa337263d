"""Import of published checkpoints of other code as purebench's weights."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from defenses.data.dataset import dataset_info
from defenses.importers.checkpoint import Checkpoint
from defenses.importers.formats import FORMATS
from defenses.networks.registry import build_network
from defenses.utils.errors import UserError, unknown
from defenses.utils.files import make_folder
from defenses.zoo.checkpoint_checks import check_data, put_tensors
from defenses.zoo.checkpoints import save_network
from defenses.zoo.weight_paths import check_name

if TYPE_CHECKING:
    from torch import nn

Convert = Callable[..., Checkpoint]  # (source, DatasetInfo, *, options)


def import_weights(
    form: str,
    source: str | Path,
    dataset: str,
    *,
    out: Path,
    name: str | None = None,
    half: bool = False,
    options: Mapping[str, object] | None = None,
) -> Path:
    """Write a checkpoint as safetensors with a sidecar, and return the file; all names and shapes must match.

    It then loads by its name: `load_model("diffpure", "cifar10", network="score-sde")`.

    Args:
        form: one of `FORMATS`.
        source: the checkpoint's file; for "diffusers" a folder or an id of the hub.
        dataset: the data set it was trained on.
        out: folder to write into, as `defenses.utils.paths.cache_dir() / dataset`.
        name: of the weights; None: the format's own name, which robustbench has not.
        half: store the weights as float16.
        options: keyword arguments of the format's function.

    Returns:
        <out>/<name>.safetensors.

    Raises:
        UserError: unknown format, option or data set; a source that is no such checkpoint, with the first mismatch, or
            of another data set; no name where the format has none; weights of that name that exist already.
    """
    checkpoint, network = read_checkpoint(form, source, dataset, options=options)
    if name is None and not checkpoint.name:
        raise UserError(f"weights of {form} have no name of their own; give one, as --name carmon")
    check_name(weights := checkpoint.name if name is None else name, checkpoint.name or form)
    file = Path(source)
    target = Path(out) / f"{weights}.safetensors"
    if target.exists():
        raise UserError(f"{target} is there already; remove it, or choose --name or --out")
    make_folder(target.parent)
    origin: dict[str, object] = {
        "format": form,
        "file": file.name if file.exists() else str(source),
        "options": dict(options or {}),
    }
    if file.is_file():
        origin["file_sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    recipe = {**checkpoint.recipe, "dataset": dataset, "imported": origin}
    save_network(target, network, checkpoint.kind, checkpoint.args, recipe, half=half)
    return target


def read_checkpoint(
    form: str, source: str | Path, dataset: str, *, options: Mapping[str, object] | None = None
) -> tuple[Checkpoint, nn.Module]:
    """Return a checkpoint, and the network with its weights; all names and shapes must match.

    Args:
        form: see `import_weights`.
        source: see `import_weights`.
        dataset: see `import_weights`.
        options: see `import_weights`.

    Raises:
        UserError: unknown format, option or data set; a source that is no such checkpoint, with the first mismatch, or
            of another data set.
    """
    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    convert, file = _convert(form, options or {}), Path(source)
    checkpoint = convert(str(source), dataset_info(dataset), **(options or {}))
    check_data(file, checkpoint.kind, checkpoint.args, dataset)
    network = build_network(checkpoint.kind, **checkpoint.args)
    put_tensors(network, checkpoint.tensors, file)
    return checkpoint, network


def _convert(form: str, options: Mapping[str, object]) -> Convert:
    """Return the function of a format, after a check of its options."""
    module, function = FORMATS[form].split(":")
    convert: Convert = getattr(importlib.import_module(module), function)
    parameters = inspect.signature(convert).parameters.values()
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return convert  # the network checks them
    names = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    for option in options:
        if option not in names:
            raise unknown(f"option of {form}", option, names)
    return convert
