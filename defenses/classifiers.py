"""Plain classifiers as defenses: the undefended one, and those whose defense lies in their training."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from defenses.base import Classifier


def build(
    network: Callable[[str], nn.Module], *, num_classes: int, input_shape: tuple[int, int, int], classifier: str
) -> Classifier:
    """The classifier whose weights are called `classifier`.

    Args:
        network: loads a network by the name of its weights.
        num_classes: K.
        input_shape: (C, H, W).
        classifier: the name of the weights.
    """
    return Classifier(network(classifier), num_classes=num_classes, input_shape=input_shape)
