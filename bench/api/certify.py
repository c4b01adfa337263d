"""Certify the gradients of a model that Python code gives."""

from __future__ import annotations

from typing import Any, Unpack

from torch import nn

from bench.board.evaluation_options import OptionKeywords, options_of
from bench.board.given_model import given_data, given_model
from bench.evaluation.certificates.stored import certificate_of
from bench.evaluation.certificates.text import GradientCertificate
from bench.evaluation.devices import device_of
from bench.evaluation.isolation import preserve_global_state
from bench.evaluation.model_checks import check_model
from defenses.data.dataset import load_dataset

_WITHOUT = ("split", "batch_size", "draws", "selection", "seed", "out", "quiet", "compute")


def certify(model: nn.Module | str, dataset: Any = "digits", **options: Unpack[OptionKeywords]) -> GradientCertificate:
    """Measure how exact the exact gradients of a model are, as `purebench certify`.

    Args:
        model: a module, a `Defense`, or a name for `load_model`.
        dataset: name or .npz path, or (x, y) of tensors or NumPy arrays, whose first images are used.
        **options: stochastic, data_root, device and name of `bench.EvaluationOptions`.

    Returns:
        The certificate, whose `state` is "passed", "failed" or "not measurable"; printed, it has a line for each check.

    Raises:
        UserError: bad input, or a model that has no exact gradients.
    """
    evaluation = options_of(certify, options, without=_WITHOUT)
    dataset = given_data(dataset, model)
    with preserve_global_state():
        defense, reference = given_model(model, dataset, evaluation)
        data = load_dataset(dataset, root=evaluation.data_root)
        x = data.first(8).to(device_of(defense))
        check_model(defense, x, data.num_classes, reference.title, probabilities=True)
        return GradientCertificate(reference.title, certificate_of(defense, x, reference.title))
