"""Published checkpoints of other code as weights of ours: `import_weights` is the entry point."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defenses.importers.checkpoint import Checkpoint
from defenses.utils.errors import UserError, unknown

if TYPE_CHECKING:
    Convert = Callable[..., "Checkpoint"]  # (source, DatasetInfo, *, options)

FORMATS = {  # name -> what reads a file, folder or id of that format
    "hill-ebm": "defenses.importers.hill:energy",
    "hill-clf": "defenses.importers.hill:classifier",
    "score-sde": "defenses.importers.score_sde:score_sde",
    "ncsnv2": "defenses.importers.ncsnv2:ncsnv2",
    "diffusers": "defenses.importers.diffusers:unet",
}


def import_weights(
    form: str,
    source: str | Path,
    dataset: str,
    *,
    out: Path,
    name: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Path:
    """Write a checkpoint as safetensors with its description; every tensor's name and shape must be as expected.

    After that it loads by its name: `load_model("diffpure", "cifar10", network="score-sde")`.

    Args:
        form: one of `FORMATS`.
        source: the checkpoint's file; for "diffusers" a folder, or an id of the hub.
        dataset: the data set it was trained on.
        out: folder to write into, as `weights_places.cache_dir() / dataset`.
        name: what the weights are called; None: the format's own name.
        options: keyword arguments of the format's function.

    Returns:
        <out>/<name>.safetensors.

    Raises:
        UserError: unknown format, option or data set; a source that is no such checkpoint, with the first mismatch, or
            of another data set; weights of that name are there already.
    """
    from defenses.data.dataset import dataset_info
    from defenses.networks.registry import build_network
    from defenses.utils.files import make_folder
    from defenses.zoo.checkpoint_checks import check_data, put_tensors
    from defenses.zoo.checkpoints import save_network
    from defenses.zoo.weight_paths import check_name

    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    convert, options, file = _convert(form, options or {}), dict(options or {}), Path(source)
    found = convert(str(source), dataset_info(dataset), **options)
    check_name(called := found.name if name is None else name, found.name)
    check_data(file, found.kind, found.args, dataset)
    network = build_network(found.kind, **found.args)
    put_tensors(network, found.tensors, file)
    target = Path(out) / f"{called}.safetensors"
    if target.exists():
        raise UserError(f"{target} is there already; remove it, or choose --name or --out")
    make_folder(target.parent)
    said: dict[str, Any] = {"format": form, "file": file.name if file.exists() else str(source), "options": options}
    if file.is_file():
        said["file_sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    save_network(target, network, found.kind, found.args, {**found.recipe, "dataset": dataset, "imported": said})
    return target


def _convert(form: str, options: Mapping[str, Any]) -> Convert:
    """The function of a format, which knows the options."""
    module, function = FORMATS[form].split(":")
    convert: Convert = getattr(importlib.import_module(module), function)
    parameters = inspect.signature(convert).parameters.values()
    known = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    for option in options:
        if option not in known:
            raise unknown(f"option of {form}", option, known)
    return convert
