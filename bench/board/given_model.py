"""Models and data that Python code gives, in memory or by name, as defenses and data sets of a board."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bench.board.defense_entry import describe_loaded
from bench.evaluation.model_checks import has_random_outputs, refuse_train_mode
from defenses.core.defense import Defense, UserModule
from defenses.data.arrays import as_array, saved_arrays
from defenses.data.dataset import load_dataset
from defenses.data.formats import as_images
from defenses.utils.devices import device_named
from defenses.utils.errors import UserError
from defenses.utils.identity import check_built
from defenses.utils.names import is_zoo
from defenses.zoo.registry import load_model

if TYPE_CHECKING:
    from pathlib import Path

    from bench.board.evaluation_options import EvaluationOptions
    from bench.spec.cell import DefenseRef


def given_data(dataset: Any, model: nn.Module | str) -> object:
    """Return the name of a data set; a pair (x, y) is kept as an .npz in the user's cache.

    Args:
        dataset: a name, or (x, y) of tensors, NumPy arrays or lists.
        model: the model that it is for, whose number of classes arrays take over.

    Raises:
        UserError: no pair, arrays that are no images and labels, or something else that holds images.
    """
    if not isinstance(dataset, tuple | list):
        if not isinstance(dataset, str) and (hasattr(dataset, "__len__") or hasattr(dataset, "__iter__")):
            remedy = 'give a name as "digits", or (x, y); of a DataLoader: x, y = map(torch.cat, zip(*loader))'
            raise UserError(f"the data set is a {type(dataset).__name__}; {remedy}")
        return dataset
    return saved_arrays(dataset, None if isinstance(model, str) else _classes_of(model, dataset))


def _classes_of(model: nn.Module, dataset: Any) -> int | None:
    """Return the number of logits of a model for the first image of a pair (x, y); None if it takes no such image."""
    try:
        x = torch.from_numpy(as_images(as_array(dataset[0]), "x")[:1])
        with torch.no_grad():
            return int(model(x.to(next(model.parameters(), x).device)).shape[1])
    except Exception:  # the checks of the data and the model name the problem
        return None


def given_model(
    model: nn.Module | str, dataset: str, options: EvaluationOptions, *, norm: str = "Linf"
) -> tuple[Defense, DefenseRef]:
    """Return a model as a defense, with its reference for a board.

    Args:
        model: a `Defense`, a module from images to logits, or a name for `load_model`.
        dataset: name or path of the data set.
        options: of the call; a module is tried on its split.
        norm: of the threat model, which selects the model of RobustBench's zoo.

    Raises:
        UserError: neither a module nor a name, or a model that cannot be loaded, is in training mode or has
            parameters that are not initialised.
    """
    defense = _as_defense(_loaded(model, dataset, norm, options.data_root), dataset, options)
    if options.device is not None:
        defense.to(device_named(str(options.device)))
    registered = model if isinstance(model, str) else ""
    return defense, describe_loaded(defense, options.name, name=registered, resumable=options.out is not None)


def as_module(model: Any, wanted: str) -> nn.Module:
    """Return a module; refuse anything else.

    Args:
        model: what a call gives.
        wanted: what is to be given, for the message.

    Raises:
        UserError: no module.
    """
    if isinstance(model, torch.export.ExportedProgram):
        raise UserError("the model is an ExportedProgram; give its module: model.module()")
    if isinstance(model, type):
        raise UserError(f"the model is the class {model.__name__}; give an instance, as {model.__name__}()")
    if not isinstance(model, nn.Module):
        raise UserError(f"the model is {str(model)[:40]!r}; give {wanted}")
    return model


def _loaded(model: nn.Module | str, dataset: str, norm: str, data_root: Path | None) -> nn.Module:
    """Return a module; a name is loaded by `load_model`."""
    if not isinstance(model, str):
        return as_module(model, "a torch.nn.Module, or a name for load_model")
    params: dict[str, Any] = {"threat_model": norm} if is_zoo(model) else {}
    return load_model(model, dataset, data_root=data_root, **params)


def _as_defense(module: nn.Module, dataset: str, options: EvaluationOptions) -> Defense:
    """Return a module as a defense."""
    check_built(module)
    stochastic, name = options.stochastic, options.name
    if isinstance(module, UserModule):
        stochastic = module.stochastic or None if stochastic is None else stochastic  # False: not said
        module = module.module
    if isinstance(module, Defense):
        return module
    refuse_train_mode(module, name or type(module).__name__, stochastic=bool(stochastic))
    if stochastic is None:
        stochastic = has_random_outputs(module, load_dataset(dataset, options.split, root=options.data_root).first(8))
    return UserModule(module, stochastic=stochastic)
