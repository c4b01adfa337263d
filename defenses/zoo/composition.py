"""Defenses put together without a class for each: filters, a purifier, a classifier, a detector beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defenses.utils.errors import UserError, unknown
from defenses.utils.names import is_plugin, is_zoo, portable
from defenses.utils.parameters import canonical
from defenses.zoo.cards import card, list_models

if TYPE_CHECKING:
    from defenses.core.defense import Classifier, Defense
    from defenses.core.detector import Guard
    from defenses.core.purifier import Purifier
    from defenses.networks.registry import Role

KEYS = ("classifier", "runs", "combine", "filters", "detector", "suspected", "level")  # all others are a part's own
SUSPECTED = ("refuse", "purify")  # what becomes of images that a detector suspects


@dataclass(frozen=True)
class Named:
    """A part that a composition names, with parameters of its own."""

    name: str
    params: Mapping[str, Any]


def named(value: Any, what: str) -> Named:
    """A part as a board writes it: a name, or a table {name = "jpeg", quality = 50}.

    Raises:
        UserError: it is neither.
    """
    if isinstance(value, str):
        return Named(value, {})
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        return Named(value["name"], {k: v for k, v in value.items() if k != "name"})
    raise UserError(f'{what} is {value!r}; write a name, or a table as {{ name = "jpeg", quality = 50 }}')


def filters_of(params: Mapping[str, Any]) -> list[Named]:
    """The filters that parameters name, in order.

    Raises:
        UserError: no list.
    """
    listed = params.get("filters") or []
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise UserError(f'filters is {listed!r}; write a list, as filters = ["bit-depth"]')
    return [named(entry, "a filter") for entry in listed]


def parts_of(params: Mapping[str, Any]) -> Iterator[tuple[str, Named]]:
    """The (role, part) that parameters name around the defense itself."""
    for entry in filters_of(params):
        yield "filter", entry
    if params.get("detector"):
        yield "detector", named(params["detector"], "detector")
    if params.get("classifier"):
        yield "classifier", named(params["classifier"], "classifier")


def renamed(params: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """Parameters with other names for the parts that are somebody's own ("file.py:Name").

    Args:
        params: of a composition.
        change: from a name to the new one.
    """

    def part(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {**value, "name": change(value["name"])} if is_plugin(value.get("name", "")) else value
        return change(value) if is_plugin(value) else value

    found = dict(params)
    if "classifier" in found:
        found["classifier"] = part(found["classifier"])
    if isinstance(found.get("filters"), list | tuple):
        found["filters"] = [part(entry) for entry in found["filters"]]
    return found


def with_own(fingerprint: Mapping[str, Any], own: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A fingerprint with what its parts of somebody's own are; wherever their files lie, it is the same.

    Args:
        fingerprint: of a composition, without them.
        own: of `Parts`, after the composition was made; empty: the fingerprint stays as it is.
    """
    if not own:
        return dict(fingerprint)
    around = [*fingerprint.get("around", []), *own]
    return {**fingerprint, "parameters": renamed(fingerprint["parameters"], portable), "around": around}


@dataclass(frozen=True)
class Parts:
    """What gives the parts of a composition on one data set.

    Args:
        dataset: name of the data set.
        weights_root: where weights are looked for first.
        training_seed: of every trained part.
        data_root: where data sets lie.
        make: from a role and a part to the `Purifier` or `Detector` and its parameters.
        load: `load_model`.
        own: what the parts of somebody's own are that were made, for fingerprints: role, name, parameters, hash of
            the code, and identity, which tells the weights that a part loads.
    """

    dataset: str
    weights_root: str | Path | None
    training_seed: int | None
    data_root: str | Path | None
    make: Callable[[str, Named], tuple[Any, Mapping[str, Any]]]
    load: Callable[..., Defense]
    own: list[dict[str, Any]] = field(default_factory=list)

    def note(self, role: str, part: Named, made: Any) -> None:
        """Add a part of somebody's own, as it was made, to `own`."""
        from defenses.utils.identity import identity
        from defenses.utils.plugins import code_hash

        said = {"role": role, "name": portable(part.name), "parameters": canonical(part.params)}
        self.own.append({**said, "code": code_hash(part.name), "state": identity(made)[0]})

    def classifier(self, part: Named) -> Classifier:
        """The plain classifier of a name for `load_model`, of weights, or in a file of one's own.

        Raises:
            UserError: it is no plain classifier.
        """
        from defenses.core.defense import Classifier, Foreign
        from defenses.core.purifier import is_purifier
        from defenses.data.dataset import dataset_info
        from defenses.utils.plugins import load_object, takes_seed
        from defenses.zoo.classifiers import build
        from defenses.zoo.weight_paths import has_weights

        name, info = part.name, dataset_info(self.dataset, root=self.data_root)
        shape = {"num_classes": info.num_classes, "input_shape": info.shape}
        known = is_zoo(name) or is_plugin(name) or name in list_models()
        if not known and has_weights(name, self.dataset, self.weights_root, training_seed=self.training_seed):
            return build(self.trained, classifier=name, **shape)  # type: ignore[arg-type]
        if name in list_models() and card(name).kind != "classifier":
            raise UserError(f'classifier = "{name}" is a {card(name).kind}; name a plain classifier')
        if is_plugin(name) and is_purifier(load_object(name)):
            raise UserError(f'classifier = "{name}" is a purifier; name a plain classifier')
        fixed = is_zoo(name) or (is_plugin(name) and not takes_seed(load_object(name)))
        seed = None if fixed else self.training_seed
        roots = {"weights_root": self.weights_root, "data_root": self.data_root}
        # A card's own filters belong in front of all of the composition, where it names them.
        alone: dict[str, Any] = {"filters": []} if name in list_models() and "filters" in card(name).parameters else {}
        model = self.load(name, self.dataset, training_seed=seed, **roots, **{**alone, **part.params})
        found: Defense = model
        if isinstance(model, Foreign):  # a plain module of the user's own
            found = Classifier(model.module, **shape)  # type: ignore[arg-type]
        if not isinstance(found, Classifier):
            raise UserError(f'classifier = "{name}" is a {type(model).__name__}; name a plain classifier')
        if is_plugin(name):
            self.note("classifier", part, found)
        return found

    def trained(self, name: str, *roles: Role) -> Any:
        """See `networks.Trained`."""
        from defenses.zoo.checkpoints import load_network

        roots = {"root": self.weights_root, "data_root": self.data_root}
        return load_network(name, self.dataset, roles=roles, training_seed=self.training_seed, **roots)


def composed(label: str, found: Any, params: Mapping[str, Any], parts: Parts) -> Defense:
    """A defense from a part and what parameters put around it.

    Args:
        label: of the part, for messages.
        found: a `Purifier`, `Classifier` or `Detector`.
        params: of `KEYS`: `classifier`, a name for `load_model` of a plain classifier or of weights; `filters`, names
            of purifiers that images meet first; `runs` and `combine` of `Purified`; `detector`, beside all of it;
            `suspected`: what it suspects is refused ("refuse") or alone purified ("purify"), and then `level` of
            `Gated` is for the others.
        parts: where the named parts come from.

    Raises:
        UserError: no classifier is named, what is named is none, or the parts do not fit each other.
    """
    from defenses.core.chain import Chain
    from defenses.core.defense import Classifier, Purified
    from defenses.core.detector import Detector, Guarded
    from defenses.core.purifier import Purifier

    called = [(entry.name, parts.make("filter", entry)[0]) for entry in filters_of(params)]
    called += [(label, found)] if isinstance(found, Purifier) else []
    purifiers = [purifier for _, purifier in called]
    options = {key: params[key] for key in ("runs", "combine") if key in params}
    if isinstance(found, Classifier):
        behind = found
    else:
        if not params.get("classifier"):
            kind = "detector" if isinstance(found, Detector) else "purifier"
            raise UserError(
                f'"{label}" is a {kind}; say which classifier it is for: params = {{ classifier = "undefended" }}, '
                "or on the command line --set classifier=undefended"
            )
        behind = parts.classifier(named(params["classifier"], "classifier"))
    if options and options != {"runs": 1} and not purifiers:
        raise UserError(f'"{label}" takes no "{next(iter(options))}" without a purifier or filters before it')
    gated = _gated(label, params, bool(purifiers))
    _fit_together(label, behind, called)
    guard = _guard(label, found, params, behind, parts)
    whole = purifiers[0] if len(purifiers) == 1 else Chain(purifiers) if purifiers else None
    if whole is not None and guard is not None and gated:
        from defenses.detectors.gated import Gated

        return Purified(Gated(whole, guard, level=params.get("level")), behind, **options)
    defense: Defense = behind if whole is None else Purified(whole, behind, **options)
    return defense if guard is None else Guarded(defense, guard)


def _gated(label: str, params: Mapping[str, Any], purifies: bool) -> bool:
    """Whether suspected images are to be purified, and not refused.

    Raises:
        UserError: `suspected` or `level` make no sense here.
    """
    how = params.get("suspected", "refuse")
    if how not in SUSPECTED:
        raise unknown(f'what "{label}" does with images that are suspected', str(how), SUSPECTED)
    if how == "purify" and not (params.get("detector") and purifies):
        raise UserError(f'"{label}" with suspected = "purify" needs a purifier, and a detector that suspects images')
    if params.get("level") is not None and how != "purify":
        raise UserError(f'"{label}" takes "level" with suspected = "purify" alone; leave it out')
    return bool(how == "purify")


def _guard(label: str, found: Any, params: Mapping[str, Any], behind: Classifier, parts: Parts) -> Guard | None:
    """The detector that is named or found, fitted on training images and calibrated on validation images."""
    from defenses.core.detector import FPR, Detector

    detector, own = found, params
    if isinstance(found, Detector) and params.get("detector"):
        raise UserError(f'"{label}" is a detector, so it takes no "detector" beside it')
    if not isinstance(found, Detector):
        if not params.get("detector"):
            return None
        detector, own = parts.make("detector", named(params["detector"], "detector"))
    from defenses.detectors.calibration import guarded_by

    return guarded_by(detector, behind, parts.dataset, own.get("fpr", FPR), data_root=parts.data_root)


def _fit_together(label: str, behind: Classifier, purifiers: Sequence[tuple[str, Purifier]]) -> None:
    """Let one blank image pass: a purifier of other images than the classifier's is refused before any work."""
    import torch

    from defenses.core.noise import Noise
    from defenses.core.steps import start, step_noise
    from defenses.utils.plugins import line_of

    if behind.input_shape is None:
        return
    image = torch.zeros(1, *behind.input_shape)
    size = "x".join(map(str, behind.input_shape))
    noise = Noise.of(0, 1, image.device)
    for name, purifier in purifiers:
        try:
            with torch.no_grad():
                state, ctx = start(purifier, image, noise)
                if purifier.steps:
                    state = purifier.step(state, ctx, 0, step_noise(purifier, image, noise)(0))
                given = tuple(purifier.finish(state, ctx).shape)
        except Exception as error:
            text = f'"{name}" does not take images of {size}, those of its classifier: {line_of(error)}'
            raise UserError(text) from None
        if given != tuple(image.shape):
            made = "x".join(map(str, given[1:]))
            raise UserError(f'"{name}" makes images of {made}, and its classifier takes {size}')
    try:
        with torch.no_grad():
            first, again = behind.logits(image, noise), behind.logits(image, noise)
    except Exception as error:
        raise UserError(f'the classifier behind "{label}" does not take images of {size}: {line_of(error)}') from None
    if isinstance(first, torch.Tensor) and not torch.allclose(first, again, equal_nan=True):
        raise UserError(f'the classifier behind "{label}" is random; name one that draws nothing')
