"""Cells: the unit of work, and the key that names its result. Nothing here imports torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.spec.threat import ThreatModel
from bench.spec.view import ViewSpec
from defenses.utils.names import portable
from defenses.utils.parameters import canonical

NULLS = ("none", "uniform")  # clean images, and uniform noise in the ball: judged on every board
GIVEN = "given:"  # before the file of images that somebody else made
SCHEMA = 1  # of cells, records and draws


@dataclass(frozen=True)
class DefenseRef:
    """A defense as a board names it.

    Args:
        label: for tables.
        name: id of the registry, or a plug-in.
        given: the parameters that the board sets.
        fingerprint: everything that its outputs depend on: all parameters, version, hashes of weights or source.
        stochastic: whether a prediction depends on noise.
        gradients: the gradient modes it has.
        training_seed: which of several trainings its weights are of; None: the board does not say.
    """

    label: str
    name: str
    given: Mapping[str, Any]
    fingerprint: Mapping[str, Any]
    stochastic: bool
    gradients: tuple[str, ...]
    training_seed: int | None = None

    @property
    def title(self) -> str:
        """Its name where trainings have to be told apart."""
        return self.label if self.training_seed is None else f"{self.label} (training seed {self.training_seed})"

    @property
    def has_runs(self) -> bool:
        """Whether a prediction combines S runs; a module of the user's own may have no such thing."""
        return self.fingerprint.get("runs", 1) is not None


@dataclass(frozen=True)
class Copies:
    """Copies of a randomised defense that an attack averages by itself.

    Args:
        a_step: copies a step, as "8" or "4-64".
        on_top: whether each copy combines the deployed runs, where the view says no other number.
    """

    a_step: str
    on_top: bool


@dataclass(frozen=True)
class AttackRef:
    """An attack as a board names it: label for tables, name, parameters by the library's names, library version."""

    label: str
    name: str
    params: Mapping[str, Any]
    version: str
    minimisation: bool = False
    warnings: tuple[str, ...] = ()
    copies: Copies | None = None


@dataclass(frozen=True)
class DataRef:
    """A block of images: consecutive positions [start, stop) of a named index list of a data set's split."""

    name: str
    split: str
    revision: str
    indices: str
    indices_hash: str
    start: int
    stop: int


@dataclass(frozen=True)
class VerdictSpec:
    """How a frozen result is judged.

    Args:
        draws: held-out draws of a stochastic defense, the ones that are counted (odd, for majorities).
        selection: further draws on which the worst attack is chosen.
        batch: at most this many images times draws go through the defense at once.
        sequential: (K, error): images that the majority rule of K draws leaves undecided are drawn on, see
            `bench.stats.sequential`; None: none are.
    """

    draws: int = 15
    selection: int = 8
    batch: int = 2048
    sequential: tuple[int, float] | None = None


@dataclass(frozen=True)
class Cell:
    """One attack on one view of one defense, on one block of images.

    With a `surrogate` the view is one of that defense, and its adversarial images are judged on `defense`: transfer.
    """

    defense: DefenseRef
    attack: AttackRef
    data: DataRef
    threat: ThreatModel
    view: ViewSpec
    verdict: VerdictSpec
    seed: int
    budget: str = "full"
    surrogate: DefenseRef | None = None
    key: str = field(init=False, default="")

    def __post_init__(self) -> None:
        text = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        object.__setattr__(self, "key", hashlib.sha256(text.encode()).hexdigest()[:20])

    def identity(self) -> dict[str, Any]:
        """All that the result depends on, in canonical form: labels are not in it."""
        view, data, judged = self.view, self.data, self.verdict
        attack = GIVEN if self.attack.name.startswith(GIVEN) else portable(self.attack.name)
        beyond = [] if judged.sequential is None else [list(judged.sequential)]
        return {
            "schema": SCHEMA,
            "defense": canonical(self.defense.fingerprint),
            "attack": [attack, canonical(self.attack.params), self.attack.version],
            "data": [portable(data.name), data.split, data.revision, data.indices_hash, data.start, data.stop],
            "threat": [self.threat.norm, str(self.threat.eps), self.threat.targets],
            "view": [view.gradient, view.eot, view.runs, view.output, *(["known"] if view.known else [])],
            "verdict": [judged.draws, judged.selection, *beyond],
            "seed": self.seed,
            **({} if self.surrogate is None else {"source": canonical(self.surrogate.fingerprint)}),
        }

    def columns(self) -> dict[str, Any]:
        """What the result is called in tables and DataFrames."""
        rare = {} if self.defense.training_seed is None else {"training_seed": self.defense.training_seed}
        rare |= {"seed_known": True} if self.view.known else {}
        return rare | {
            "key": self.key,
            "defense": self.defense.label,
            "attack": self.attack.label,
            "view": self.view_label,
            "gradient": self.view.gradient,
            "eot": self.view.eot,
            "runs": self.view.runs,
            "dataset": self.data.name,
            "split": self.data.split,
            "indices": self.data.indices,
            "block": self.data.start,
            "images": self.data.stop - self.data.start,
            "norm": self.threat.norm,
            "eps": str(self.threat.eps),
            "targets": self.threat.targets,
            "knowledge": self.threat.knowledge,
            "seed": self.seed,
            "draws": self.verdict.draws,
            "selection": self.verdict.selection,
            "stochastic": self.defense.stochastic,
            "minimisation": self.attack.minimisation,
            "budget": self.budget,
            "warnings": list(self.attack.warnings),
        }

    @property
    def view_label(self) -> str:
        """How the attacker looked at the defense; a null attack does not look, and of given images it is not known."""
        if self.attack.name in NULLS:
            return "deployed, seed known" if self.view.known else "deployed"
        if self.attack.name.startswith(GIVEN):
            return "given"
        copies = self.attack.copies
        if copies is None:
            return self.view.label(self.defense.stochastic, has_runs=self.defense.has_runs)
        runs = self.view.runs or (None if copies.on_top or self.view.known else 1)
        return self.view.label(self.defense.stochastic, has_runs=self.defense.has_runs, eot=copies.a_step, runs=runs)

    def noise_seed(self, purpose: str) -> int:
        """A 63-bit seed for one purpose ("view", "attack") of this cell alone."""
        digest = hashlib.sha256(f"{self.key}/{purpose}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1


def digest(fingerprint: Any) -> str:
    """The key of a defense: a hash of its fingerprint, parameters and weights included."""
    text = json.dumps(canonical(fingerprint), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


KNOWN = ", seed known"  # after the label of a null attack that is judged on the known draw
TRANSFER = "transfer"  # a null attack that a board may ask for


def row_of(cell: Cell) -> str:
    """The row of a table that a cell belongs to, as text: cells of a row differ in their images alone."""
    return f"{cell.threat} | {cell.defense.label} | {cell.attack.label} | {cell.view_label}"
