"""Plain classifiers as defenses: the undefended one, and those defended by their training."""

from __future__ import annotations

from defenses.core.defense import Classifier
from defenses.networks.registry import NetworkLoader


def build(
    network: NetworkLoader, *, num_classes: int, input_shape: tuple[int, int, int], classifier: str
) -> Classifier:
    """Return the classifier with the weights called `classifier`.

    Args:
        network: from the name of weights to the network.
        num_classes: K.
        input_shape: (C, H, W).
        classifier: the name of the weights.

    Raises:
        UserError: the weights are of another kind of network.
    """
    return Classifier(network(classifier, "classifier"), num_classes=num_classes, input_shape=input_shape)
