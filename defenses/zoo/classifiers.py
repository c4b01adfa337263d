"""Plain classifiers as defenses: the undefended one, and those whose defense lies in their training."""

from __future__ import annotations

from defenses.core.defense import Classifier
from defenses.networks.registry import Trained


def build(network: Trained, *, num_classes: int, input_shape: tuple[int, int, int], classifier: str) -> Classifier:
    """The classifier whose weights are called `classifier`.

    Args:
        network: loads a network by the name of its weights.
        num_classes: K.
        input_shape: (C, H, W).
        classifier: the name of the weights.

    Raises:
        UserError: these weights are of no classifier.
    """
    return Classifier(network(classifier, "classifier"), num_classes=num_classes, input_shape=input_shape)
