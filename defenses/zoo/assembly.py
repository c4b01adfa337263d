"""Building of compositions: filters, a purifier, a classifier behind them, a detector beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from defenses.core.chain import Chain
from defenses.core.defense import Classifier, Defense, Purified, UserModule
from defenses.core.detector import FPR, Detector, Guard, Guarded
from defenses.core.noise import Noise
from defenses.core.purifier import Purifier, is_purifier
from defenses.core.steps import start, step_noise
from defenses.data.dataset import dataset_info
from defenses.detectors.calibration import guarded_by
from defenses.detectors.gated import Gated
from defenses.networks.registry import Role
from defenses.utils.errors import UserError, unknown
from defenses.utils.identity import identity
from defenses.utils.json_values import Json, JsonView
from defenses.utils.names import is_plugin, is_zoo, portable
from defenses.utils.parameters import canonical
from defenses.utils.plugins import code_hash, line_of, load_object, takes_seed
from defenses.zoo.cards import card, list_models
from defenses.zoo.checkpoints import load_network
from defenses.zoo.classifiers import build
from defenses.zoo.composition import SUSPECTED, Named, filters_of, named
from defenses.zoo.weight_paths import has_weights


@dataclass(frozen=True)
class Parts:
    """Builders of the parts of a composition on one data set.

    Args:
        dataset: name of the data set.
        weights_root: folder of weights to look in first.
        training_seed: of every trained part.
        data_root: folder of data sets.
        make: from a role and a part to the `Purifier` or `Detector` and its parameters.
        load: `load_model`.
        user_parts: of every user-defined part that was built, for fingerprints: role, name, parameters, hash of the
            code, and identity, which covers the weights that a part loads.
    """

    dataset: str
    weights_root: str | Path | None
    training_seed: int | None
    data_root: str | Path | None
    make: Callable[[str, Named], tuple[Any, JsonView]]
    load: Callable[..., Defense]
    user_parts: list[Json] = field(default_factory=list)

    def note(self, role: str, part: Named, built: Any) -> None:
        """Add a user-defined part, as it was built, to `user_parts`."""
        entry = {"role": role, "name": portable(part.name), "parameters": canonical(part.params)}
        self.user_parts.append({**entry, "code": code_hash(part.name), "state": identity(built)[0]})

    def classifier(self, part: Named) -> Classifier:
        """Return the plain classifier of a name for `load_model`, of weights, or of a user's file.

        Raises:
            UserError: the part is no plain classifier.
        """
        name, info = part.name, dataset_info(self.dataset, root=self.data_root)
        shape = {"num_classes": info.num_classes, "input_shape": info.shape}
        is_model = is_zoo(name) or is_plugin(name) or name in list_models()
        if not is_model and has_weights(name, self.dataset, self.weights_root, training_seed=self.training_seed):
            return build(self.trained, classifier=name, **shape)  # type: ignore[arg-type]
        if name in list_models() and card(name).kind != "classifier":
            raise UserError(f'classifier = "{name}" is a {card(name).kind}; name a plain classifier')
        if is_plugin(name) and is_purifier(load_object(name)):
            raise UserError(f'classifier = "{name}" is a purifier; name a plain classifier')
        fixed = is_zoo(name) or (is_plugin(name) and not takes_seed(load_object(name)))
        seed = None if fixed else self.training_seed
        roots = {"weights_root": self.weights_root, "data_root": self.data_root}
        # Filters that a card has by default belong before the whole composition, not here.
        has_filters = name in list_models() and "filters" in card(name).parameters
        unfiltered: Json = {"filters": []} if has_filters else {}
        model = self.load(name, self.dataset, training_seed=seed, **roots, **{**unfiltered, **part.params})
        defense: Defense = model
        if isinstance(model, UserModule):  # a plain module of a user
            defense = Classifier(model.module, **shape)  # type: ignore[arg-type]
        if not isinstance(defense, Classifier):
            raise UserError(f'classifier = "{name}" is a {type(model).__name__}; name a plain classifier')
        if is_plugin(name):
            self.note("classifier", part, defense)
        return defense

    def trained(self, name: str, *roles: Role) -> object:
        """Return a trained network by the name of its weights; see `networks.registry.NetworkLoader`."""
        roots = {"root": self.weights_root, "data_root": self.data_root}
        return load_network(name, self.dataset, roles=roles, training_seed=self.training_seed, **roots)


def composed(label: str, part: Any, params: JsonView, parts: Parts) -> Defense:
    """Return the defense of a part and of the parts that parameters put around it.

    Args:
        label: of the part, for messages.
        part: a `Purifier`, `Classifier` or `Detector`.
        params: of `KEYS`: `classifier`, a name for `load_model` of a plain classifier or of weights; `filters`, names
            of purifiers before all others; `runs` and `combine` of `Purified`; `detector`, beside the whole;
            `suspected`, "refuse" or "purify" for the images that it suspects: with "purify" no others are purified,
            and `level` of `Gated` applies to those; `autoencoder`, the name of weights, see `Purified`.
        parts: builders of the named parts.

    Raises:
        UserError: no plain classifier is named, or the parts do not fit each other.
    """
    purifiers = [(entry.name, parts.make("filter", entry)[0]) for entry in filters_of(params)]
    purifiers += [(label, part)] if isinstance(part, Purifier) else []
    options = {key: params[key] for key in ("runs", "combine") if key in params}
    if isinstance(part, Classifier):
        classifier = part
    else:
        if not params.get("classifier"):
            kind = "detector" if isinstance(part, Detector) else "purifier"
            raise UserError(
                f'"{label}" is a {kind}; say which classifier it is for: params = {{ classifier = "undefended" }}, '
                "or on the command line --set classifier=undefended"
            )
        classifier = parts.classifier(named(params["classifier"], "classifier"))
    if options and options != {"runs": 1} and not purifiers:
        raise UserError(f'"{label}" takes no "{next(iter(options))}" without a purifier or filters before it')
    gated = _gated(label, params, bool(purifiers))
    _fit_together(label, classifier, purifiers)
    guard = _guard(label, part, params, classifier, parts)
    if "autoencoder" in params:
        options["autoencoder"] = parts.trained(params["autoencoder"], "autoencoder", "variational autoencoder")
    whole = _chained([purifier for _, purifier in purifiers])
    if whole is not None and guard is not None and gated:
        return Purified(Gated(whole, guard, level=params.get("level")), classifier, **options)
    defense: Defense = classifier if whole is None else Purified(whole, classifier, **options)
    return defense if guard is None else Guarded(defense, guard)


def _chained(purifiers: Sequence[Purifier]) -> Purifier | None:
    if len(purifiers) > 1:
        return Chain(purifiers)
    return purifiers[0] if purifiers else None


def _gated(label: str, params: Mapping[str, object], purifies: bool) -> bool:
    """Return True if suspected images are purified, False if they are refused.

    Raises:
        UserError: `suspected` or `level` have no effect here.
    """
    how = params.get("suspected", "refuse")
    if how not in SUSPECTED:
        raise unknown(f'what "{label}" does with images that are suspected', str(how), SUSPECTED)
    if how == "purify" and not (params.get("detector") and purifies):
        raise UserError(f'"{label}" with suspected = "purify" needs a purifier, and a detector that suspects images')
    if params.get("level") is not None and how != "purify":
        raise UserError(f'"{label}" takes "level" with suspected = "purify" alone; leave it out')
    return bool(how == "purify")


def _guard(label: str, part: Any, params: Mapping[str, object], classifier: Classifier, parts: Parts) -> Guard | None:
    """Return the named or given detector, fitted on training images and calibrated on validation images; or None."""
    detector, settings = part, params
    if isinstance(part, Detector) and params.get("detector"):
        raise UserError(f'"{label}" is a detector, so it takes no "detector" beside it')
    if not isinstance(part, Detector):
        if not params.get("detector"):
            return None
        detector, settings = parts.make("detector", named(params["detector"], "detector"))
    return guarded_by(detector, classifier, parts.dataset, settings.get("fpr", FPR), data_root=parts.data_root)


def _fit_together(label: str, classifier: Classifier, purifiers: Sequence[tuple[str, Purifier]]) -> None:
    """Refuse a purifier or classifier for other images, by a pass of one blank image."""
    if classifier.input_shape is None:
        return
    image = torch.zeros(1, *classifier.input_shape)
    size = "x".join(map(str, classifier.input_shape))
    noise = Noise.of(0, 1, image.device)
    for name, purifier in purifiers:
        try:
            with torch.no_grad():
                state, ctx = start(purifier, image, noise)
                if purifier.steps:
                    state = purifier.step(state, ctx, 0, step_noise(purifier, image, noise)(0))
                shape = tuple(purifier.finish(state, ctx).shape)
        except Exception as error:
            text = f'"{name}" does not take images of {size}, those of its classifier: {line_of(error)}'
            raise UserError(text) from None
        if shape != tuple(image.shape):
            wrong = "x".join(map(str, shape[1:]))
            raise UserError(f'"{name}" makes images of {wrong}, and its classifier takes {size}')
    try:
        with torch.no_grad():
            first, again = classifier.logits(image, noise), classifier.logits(image, noise)
    except Exception as error:
        raise UserError(f'the classifier behind "{label}" does not take images of {size}: {line_of(error)}') from None
    if isinstance(first, torch.Tensor) and not torch.allclose(first, again, equal_nan=True):
        raise UserError(f'the classifier behind "{label}" is random; name one that draws nothing')
