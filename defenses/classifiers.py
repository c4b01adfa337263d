"""Plain classifiers as defenses: the undefended one, and those whose defense lies in their training."""

from __future__ import annotations

import torch

from defenses.base import Classifier
from defenses.errors import UserError
from defenses.networks import Trained


def build(network: Trained, *, num_classes: int, input_shape: tuple[int, int, int], classifier: str) -> Classifier:
    """The classifier whose weights are called `classifier`.

    Args:
        network: loads a network by the name of its weights.
        num_classes: K.
        input_shape: (C, H, W).
        classifier: the name of the weights.

    Raises:
        UserError: what these weights are of gives no K logits an image.
    """
    found = network(classifier)
    try:
        with torch.no_grad():
            given = found(torch.zeros(1, *input_shape)).shape
    except Exception:  # a network that takes more than images
        given = None
    if given != (1, num_classes):
        raise UserError(f'"{classifier}" gives no {num_classes} logits for an image; name the weights of a classifier')
    return Classifier(found, num_classes=num_classes, input_shape=input_shape)
