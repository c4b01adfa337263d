"""Translation of the arguments of RobustBench's `load_model`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from defenses.utils.errors import UserError
from defenses.utils.names import is_zoo

_NORMS = ("Linf", "L2", "L1", "L0")


def translated(
    name: str, weights_root: str | Path | None, params: Mapping[str, object]
) -> tuple[str | Path | None, dict[str, object]]:
    """Return the folder of weights to look in first, and the parameters of the defense.

    Args:
        name: of a registered defense, which takes no threat model, or of the zoo, where it is a parameter.
        weights_root: the folder under purebench's name.
        params: `model_dir` (the folder under RobustBench's name), `threat_model`, and parameters of the defense.

    Raises:
        UserError: the folder is given twice or is no path; the name is no text; a threat model without attacks.
    """
    if not isinstance(name, str):
        raise UserError(f"model_name is {name!r}; give a name, as one of list_models()")
    rest = dict(params)
    if (model_dir := rest.pop("model_dir", None)) is not None:
        if weights_root is not None:
            raise UserError("weights_root and model_dir say the same; give one of them")
        if not isinstance(model_dir, str | Path):
            raise UserError(f"model_dir is {model_dir!r}; give a folder")
        weights_root = model_dir
    if "norm" in rest:
        raise UserError("norm is what RobustBench calls threat_model now; give threat_model")
    if rest.pop("custom_checkpoint", None):
        raise UserError("custom_checkpoint is not taken; give the file as weights_root, or your own module:Class")
    if not is_zoo(name):
        _check_norm(name, rest.pop("threat_model", None))
    return weights_root, rest


def _check_norm(name: str, threat_model: object) -> None:
    if threat_model is not None and str(threat_model).lower() not in map(str.lower, _NORMS):
        text = f'threat_model is "{str(threat_model)[:40]}"; {name} is attacked in the norms {", ".join(_NORMS)}'
        raise UserError(f"{text} (corrupted images are a data set)")
