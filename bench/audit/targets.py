"""What an audit is asked for: a board, a results folder, or one defense."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.board.defense_entry import Candidate, candidate
from bench.spec.threat import ThreatModel
from defenses.utils.errors import UserError, unknown

if TYPE_CHECKING:
    from bench.audit.budgets import Budget
    from bench.audit.subject import Subject
    from bench.board.defense_entry import Roots
    from defenses.core.defense import Defense

FEWEST = 8  # images
_NORMS = ("Linf", "L2", "L1")


@dataclass(frozen=True)
class AuditOptions:
    """On what defenses are audited.

    Args:
        dataset: its name.
        split: of it.
        indices: named index list, of which the first images are taken.
        threat: norm and eps.
        seed: of everything.
        out: results folder.

    Raises:
        UserError: a norm that the audit's attacks do not have.
    """

    dataset: str
    split: str
    indices: str
    threat: ThreatModel
    seed: int
    out: Path

    def __post_init__(self) -> None:
        if self.threat.norm not in _NORMS:
            norms = ", ".join(_NORMS)
            raise UserError(f"an audit attacks in {norms}, not in {self.threat.norm}; give --norm and --eps")


def stored(results: Path, roots: Roots) -> tuple[dict[str, Any], list[Candidate]]:
    """(the first line of the plan, the defenses) of a results folder.

    Raises:
        UserError: no results there, or a defense that cannot be made again or is another one by now.
    """
    from bench.store.reader import read_folder

    lines: list[dict[str, Any]] = read_folder(results, lambda lines, _: lines)
    found = {line["defense"]: line["identity"]["defense"] for line in lines if line.get("identity")}
    if not found:
        raise UserError(f"{results} has no finished cells; run its board first, or audit the board")
    dataset = lines[0]["dataset"]
    return lines[0], [_rebuilt(label, said, dataset, roots) for label, said in found.items()]


def _rebuilt(label: str, fingerprint: Mapping[str, Any], dataset: str, roots: Roots) -> Candidate:
    def load() -> Defense:
        from bench.audit.reproduction.rebuild import rebuild_defense

        made = rebuild_defense(fingerprint, dataset, **roots)
        if made.defense is None:
            raise UserError(f"{label} cannot be made again: {made.problem}")
        if made.changes:
            raise UserError(f"{label} is not what was run ({made.changes[0]}); run its board again")
        return made.defense

    return Candidate(label, fingerprint, load)


def chosen(candidates: list[Candidate], labels: list[str]) -> list[Candidate]:
    """The defenses of these labels; all where none is given.

    Raises:
        UserError: a label that there is not.
    """
    known = {c.label: c for c in candidates}
    for label in labels:
        if label not in known:
            raise unknown("defense", label, known)
    return [known[label] for label in labels] or candidates


def subject(
    one: Candidate,
    setting: AuditOptions,
    budget: Budget,
    *,
    device: str = "cpu",
    data_root: Path | None = None,
    weights_root: Path | None = None,
    force: bool = False,
    other: str | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Subject:
    """A defense, checked, with its images.

    Args:
        one: the defense.
        setting: on what.
        budget: says how many images.
        device: where to compute.
        data_root: where data sets lie.
        weights_root: where weights are looked for first.
        force: audit a model that returns probabilities, too.
        other: a network whose adversarial images are tried; None: "undefended", where there is one.
        report: is told what is done now.

    Raises:
        UserError: a model that cannot be attacked or that declares gradients and has none, unknown data, or hardly any.
    """
    import torch

    from bench.audit.subject import Subject
    from bench.board.indices import resolve
    from bench.evaluation.certificates.measure import has_gradient
    from bench.evaluation.certificates.stored import no_gradient
    from bench.evaluation.devices import device_named
    from bench.evaluation.model_checks import check_model
    from bench.store.audits import FOLDER
    from defenses.core.defense import Foreign
    from defenses.data.dataset import load_dataset

    data = load_dataset(setting.dataset, setting.split, root=data_root)
    listed = resolve(setting.indices, len(data), dataset=data.name, split=data.split, labels=data.y.tolist)
    at = torch.tensor(listed.positions[: budget.images])
    place, defense = device_named(device), one.load()
    defense.to(place)
    x, y = data.x[at].to(place), data.y[at].to(place)
    if len(x) < FEWEST:
        raise UserError(f"an audit of {len(x)} images can tell nothing; take at least {FEWEST}, 100 or more to publish")
    check_model(defense, x[:8], data.num_classes, one.label, probabilities=force)
    if not isinstance(defense, Foreign) and "exact" in defense.gradients and not has_gradient(defense, x[:1]):
        raise no_gradient(one.label)
    bare = _other(one, setting.dataset, other, {"weights_root": weights_root, "data_root": data_root})
    return Subject(
        defense=defense,
        label=one.label,
        fingerprint=json.loads(json.dumps(one.fingerprint)),
        x=x,
        y=y,
        indices=at,
        num_classes=data.num_classes,
        dataset=setting.dataset,
        threat=setting.threat,
        budget=budget,
        seed=setting.seed,
        folder=setting.out / FOLDER / "raw",
        other=None if bare is None else bare.load().to(place),
        other_fingerprint=None if bare is None else bare.fingerprint,
        report=report,
    )


def _other(one: Candidate, dataset: str, name: str | None, roots: Roots) -> Candidate | None:
    """Another network for transfer; None where there is none, or it is the defense itself."""
    from bench.board.defense_entry import describe

    try:
        reference = describe({"name": name or "undefended"}, dataset, **roots)
    except UserError:
        if name is not None:
            raise
        return None
    found = candidate(reference, dataset, roots)
    return None if found.fingerprint == one.fingerprint else found
