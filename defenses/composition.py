"""A purifier of one's own before a classifier that is named: what a board composes without a line of code."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

from defenses.base import Classifier, Defense, Foreign, Purified
from defenses.errors import UserError
from defenses.purifier import Purifier

_BEHIND = ("classifier", "runs", "combine")  # parameters of the composition; all others are the purifier's


def composed(
    name: str,
    found: Any,
    params: Mapping[str, Any],
    dataset: str,
    weights_root: str | Path | None = None,
    training_seed: int | None = None,
) -> Purified:
    """A purifier before a classifier.

    Args:
        name: of the purifier, for messages.
        found: its class, or an instance.
        params: `classifier`, a name for `load_model` of a deterministic classifier; `runs` and `combine` of
            `Purified`; and the arguments of the class.
        dataset: the data set it is for, on which the classifier's weights depend.
        weights_root: where weights are looked for first.
        training_seed: of the classifier, and of the purifier where its class has an argument of that name.

    Raises:
        UserError: no classifier is named, or what is named is none.
    """
    behind = {key: params[key] for key in _BEHIND if key in params}
    own = {key: value for key, value in params.items() if key not in _BEHIND}
    if not isinstance(behind.get("classifier"), str):
        raise UserError(
            f'"{name}" is a purifier; say which classifier stands behind it: params = {{ classifier = "undefended" }}, '
            "or on the command line --set classifier=undefended"
        )
    classifier = _classifier(behind.pop("classifier"), dataset, weights_root, training_seed)
    if training_seed is not None and isinstance(found, type) and "training_seed" in signature(found).parameters:
        own["training_seed"] = training_seed
    if isinstance(found, Purifier) and own:
        raise UserError(f'"{name}" is made already, so it takes no "{next(iter(own))}"; name its class')
    purifier = found if isinstance(found, Purifier) else found(**own)
    return Purified(purifier, classifier, **behind)


def _classifier(name: str, dataset: str, weights_root: str | Path | None, training_seed: int | None) -> Classifier:
    from bench.data import dataset_info
    from defenses.registry import load_model

    model: Defense = load_model(name, dataset, weights_root=weights_root, training_seed=training_seed)
    if isinstance(model, Foreign):  # a plain module of the user's own
        info = dataset_info(dataset)
        return Classifier(model.module, num_classes=info.num_classes, input_shape=info.shape)
    if not isinstance(model, Classifier):
        kind = type(model).__name__
        raise UserError(f'classifier = "{name}" is a {kind}; behind a purifier stands a plain classifier: name one')
    return model
