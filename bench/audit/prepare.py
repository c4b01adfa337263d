"""Load a defense and its images for an audit."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from bench.audit.budgets import Budget
from bench.audit.subject import Subject
from bench.audit.targets import AuditOptions
from bench.board.defense_entry import Candidate, candidate, describe
from bench.board.indices import resolve
from bench.evaluation.certificates.measure import has_gradient
from bench.evaluation.certificates.stored import no_gradient
from bench.evaluation.model_checks import check_model
from bench.store.audits import FOLDER
from defenses.core.defense import Defense, UserModule
from defenses.core.noise import Noise
from defenses.data.dataset import load_dataset
from defenses.utils.devices import device_named
from defenses.utils.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from bench.board.defense_entry import Roots

_FEWEST = 8  # images


def prepare(
    member: Candidate,
    options: AuditOptions,
    budget: Budget,
    roots: Roots,
    *,
    device: str = "cpu",
    force: bool = False,
    surrogate: str | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Subject:
    """Return a defense, checked, with its images.

    Args:
        member: the defense.
        options: data, threat and results folder.
        budget: of the audit.
        roots: folders of weights and of data sets.
        device: of the computation.
        force: audit a model that returns probabilities, too.
        surrogate: name of the network of the transfer attack; None: "undefended", if the data set has one.
        report: called with a line of text for every check and attack.

    Raises:
        UserError: a model that cannot be attacked or that declares gradients and has none, unknown data, or hardly any.
    """
    data = load_dataset(options.dataset, options.split, root=roots["data_root"])
    listed = resolve(options.indices, len(data), dataset=data.name, split=data.split, labels=data.y.tolist)
    positions = torch.tensor(listed.positions[: budget.images])
    place, defense = device_named(device), member.load()
    defense.to(place)
    x, y = data.images(positions).to(place), data.y[positions].to(place)
    _check(defense, x, data.num_classes, member.label, force=force)
    if not force:
        _check_clean(defense, x, y, positions, data.num_classes, member.label, options.seed)
    other = _surrogate(member, options.dataset, surrogate, roots)
    return Subject(
        defense=defense,
        label=member.label,
        fingerprint=json.loads(json.dumps(member.fingerprint)),
        x=x,
        y=y,
        indices=positions,
        num_classes=data.num_classes,
        dataset=options.dataset,
        threat=options.threat,
        budget=budget,
        seed=options.seed,
        folder=options.out / FOLDER / "raw",
        other=None if other is None else other.load().to(place),
        other_fingerprint=None if other is None else other.fingerprint,
        code=member.reference,
        report=report,
    )


def _check(defense: Defense, x: Tensor, num_classes: int, label: str, *, force: bool) -> None:
    """Refuse too few images, a model that cannot be attacked, and exact gradients that are none."""
    if len(x) < _FEWEST:
        raise UserError(
            f"an audit of {len(x)} images can tell nothing; take at least {_FEWEST}, 100 or more to publish"
        )
    check_model(defense, x[:8], num_classes, label, probabilities=force)
    if not isinstance(defense, UserModule) and "exact" in defense.gradients and not has_gradient(defense, x[:1]):
        raise no_gradient(label)


def _check_clean(
    defense: Defense, x: Tensor, y: Tensor, indices: Tensor, num_classes: int, label: str, seed: int
) -> None:
    """Refuse a defense that guesses on clean images: every check of an audit would hold."""
    with torch.no_grad():
        logits = defense.logits(x, Noise.of(seed, indices, x.device))
    accuracy = float((logits.argmax(1) == y).float().mean())
    if accuracy <= 1 / num_classes:
        raise UserError(
            f"{label}: clean accuracy {100 * accuracy:.1f}% is no better than a guess among {num_classes} classes, so "
            "an audit can tell nothing; are labels and range of the images those of the model? (--force audits it)"
        )


def _surrogate(member: Candidate, dataset: str, name: str | None, roots: Roots) -> Candidate | None:
    """Return the surrogate of the transfer attack; None if there is none, or if it is the defense itself."""
    try:
        reference = describe({"name": name or "undefended"}, dataset, **roots)
    except UserError:
        if name is not None:
            raise
        return None
    surrogate = candidate(reference, dataset, roots)
    return None if surrogate.fingerprint == member.fingerprint else surrogate
