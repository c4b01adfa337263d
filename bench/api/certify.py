"""Certify the gradients of a model that Python code gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from bench.board.given_model import given_data, given_model
from bench.evaluation.certificates.stored import certificate_of
from bench.evaluation.certificates.text import GradientCertificate
from bench.evaluation.devices import device_of
from bench.evaluation.isolation import preserve_global_state
from bench.evaluation.model_checks import check_model
from defenses.data.dataset import load_dataset


def certify(
    model: nn.Module | str,
    dataset: Any = "digits",
    *,
    stochastic: bool | None = None,
    data_root: str | Path | None = None,
    device: Any = None,
    name: str | None = None,
) -> GradientCertificate:
    """Measure how exact the exact gradients of a model are, as `purebench certify`.

    Args:
        model: a module, a `Defense`, or a name for `load_model`.
        dataset: name or .npz path, or (x, y) of tensors or NumPy arrays, whose first images are used.
        stochastic: True if the outputs of a module that is no `Defense` are random; None: try.
        data_root: where data sets lie.
        device: device to which the model is moved; None: it stays where it is.
        name: name of the model in messages; None: its name in the registry, or of its class.

    Returns:
        The certificate, whose `state` is "passed", "failed" or "not measurable"; printed, it has a line for each check.

    Raises:
        UserError: bad input, or a model that has no exact gradients.
    """
    root, dataset = None if data_root is None else Path(data_root), given_data(dataset, model)
    options: dict[str, Any] = {"stochastic": stochastic, "data_root": root, "device": device, "name": name}
    with preserve_global_state():
        defense, reference = given_model(model, dataset, resumable=False, **options)
        data = load_dataset(dataset, root=root)
        x = data.x[:8].to(device_of(defense))
        check_model(defense, x, data.num_classes, reference.title, probabilities=True)
        return GradientCertificate(reference.title, certificate_of(defense, x, reference.title))
