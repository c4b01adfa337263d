"""Cells, the unit of work, and the keys of their results; without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from bench.spec.cell_columns import CellColumns
from bench.spec.compute import Compute
from bench.spec.threat import ThreatModel
from bench.spec.view import ViewSpec
from defenses.utils import checksums
from defenses.utils.json_values import Json, JsonView
from defenses.utils.names import is_short_of, portable
from defenses.utils.parameters import canonical

NULLS = ("none", "uniform")  # clean images, and uniform noise in the ball: on every board
TRANSFER = "transfer"  # a null attack that a board may ask for
DEPLOYED, GIVEN = "deployed", "given"  # views of null attacks and of precomputed images
KNOWN = ", seed known"  # after the label of a null attack that is judged on the known draw
NO_GRADIENT = (DEPLOYED, f"{DEPLOYED}{KNOWN}", GIVEN)  # values of the column "view" of attacks that query no model
PRECOMPUTED = "given:"  # before the file of precomputed images
SCHEMA = 1  # of cells, records and draws
RENAMED_FROM = {"bench:bpda-eot": "bench.screened:bpda_eot"}  # keys keep the old name of a renamed attack


@dataclass(frozen=True)
class DefenseRef:
    """A reference to a defense, made from a board.

    Args:
        label: for tables.
        name: id of the registry, or a plug-in.
        params: the parameters that the board sets.
        fingerprint: everything that its outputs depend on: all parameters, version, hashes of weights or source.
        stochastic: its predictions depend on noise.
        gradients: its gradient modes.
        training_seed: seed of the training that made its weights; None: the board names none.
        unidentified: a part of it that the fingerprint cannot cover, as "net.cfg is a lock"; "": there is none.
    """

    label: str
    name: str
    params: Mapping[str, object]
    fingerprint: JsonView
    stochastic: bool
    gradients: tuple[str, ...]
    training_seed: int | None = None
    unidentified: str = ""

    @property
    def title(self) -> str:
        """Return the label, with the training seed where there is one."""
        return self.label if self.training_seed is None else title_of(self.label, self.training_seed)

    def is_called(self, text: str) -> bool:
        """Return True if a text is the label, or the name of the user's file that the label is short for."""
        return text == self.label or (text == self.name and is_short_of(self.label, self.name))

    @property
    def has_runs(self) -> bool:
        """Return True if a prediction combines S runs; a user-defined module may have none."""
        return self.fingerprint.get("runs", 1) is not None


@dataclass(frozen=True)
class Copies:
    """Copies of a randomised defense that an attack averages by itself.

    Args:
        a_step: number of copies in each step, as "8" or "4-64".
        on_top: each copy combines the deployed runs, unless the view has another number of runs.
    """

    a_step: str
    on_top: bool


@dataclass(frozen=True)
class AttackRef:
    """A reference to an attack, made from a board.

    Args:
        label: for tables.
        name: see `bench.attacks.registry.find_attack`.
        params: parameters by the library's names, in canonical form.
        version: of the library.
        minimisation: True: it looks for the nearest adversarial image, and eps judges it afterwards.
        warnings: lines for footnotes, on settings that weaken it.
        copies: copies that the attack averages by itself; None: those of the view.
    """

    label: str
    name: str
    params: Mapping[str, object]
    version: str
    minimisation: bool = False
    warnings: tuple[str, ...] = ()
    copies: Copies | None = None

    def is_called(self, text: str) -> bool:
        """Return True if a text is the label, or the name of the user's file that the label is short for."""
        return text == self.label or (text == self.name and is_short_of(self.label, self.name))

    @property
    def is_null(self) -> bool:
        """Return True if it runs on every board and reads no model: clean images or uniform noise."""
        return self.name in NULLS

    @property
    def is_precomputed(self) -> bool:
        """Return True if its images come from a file."""
        return self.name.startswith(PRECOMPUTED)

    @property
    def queries_model(self) -> bool:
        """Return True if it sees a view of the defense."""
        return not self.is_null and not self.is_precomputed


@dataclass(frozen=True)
class DataRef:
    """A block of images: consecutive positions [start, stop) of a named index list of a data set's split.

    Args:
        name: of the data set.
        split: of the data set.
        revision: version of its files.
        indices: name of the index list.
        indices_hash: 16 hex digits of a hash of its positions.
        start: first position of the block in the list.
        stop: position after the last one.
    """

    name: str
    split: str
    revision: str
    indices: str
    indices_hash: str
    start: int
    stop: int


@dataclass(frozen=True)
class VerdictSpec:
    """Draws of the verdict on adversarial images.

    Args:
        draws: held-out draws of a stochastic defense, which are counted (odd, for majorities).
        selection: further draws on which the worst attack is chosen.
        batch: at most this many images times draws go through the defense at once.
        sequential: (K, error) of the rule that draws on for images whose majority of K draws is undecided, see
            `bench.stats.sequential`; None: no such rule.
    """

    draws: int = 15
    selection: int = 8
    batch: int = 2048
    sequential: tuple[int, float] | None = None


@dataclass(frozen=True)
class Cell:
    """Cell: an attack on a view of a defense, on a block of images.

    With a `surrogate` (transfer) its `source_view` is attacked, and the adversarial images are judged on `defense`.
    The attack searches in the arithmetic of `compute`; the verdict is in float32.
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
    compute: Compute = field(default_factory=Compute)
    source_view: ViewSpec = field(default_factory=ViewSpec)
    key: str = field(init=False, default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", checksums.digest(self.identity(), compact=True)[:20])

    def identity(self) -> Json:
        """Return everything that the result depends on, in canonical form and without labels."""
        view, data, verdict = self.view, self.data, self.verdict
        name = RENAMED_FROM.get(self.attack.name, self.attack.name)
        attack = PRECOMPUTED if self.attack.is_precomputed else portable(name)
        sequential = [] if verdict.sequential is None else [list(verdict.sequential)]
        seen = self.source_view
        of_source = [] if seen == ViewSpec() else [seen.gradient, seen.eot, seen.runs, seen.output]
        return {
            "schema": SCHEMA,
            "defense": canonical(self.defense.fingerprint),
            "attack": [attack, canonical(self.attack.params), self.attack.version],
            "data": [portable(data.name), data.split, data.revision, data.indices_hash, data.start, data.stop],
            "threat": [self.threat.norm, str(self.threat.eps), self.threat.targets],
            "view": [view.gradient, view.eot, view.runs, view.output, *(["known"] if view.known else [])],
            "verdict": [verdict.draws, verdict.selection, *sequential],
            "seed": self.seed,
            **({} if self.surrogate is None else {"source": canonical(self.surrogate.fingerprint)}),
            **({"source_view": of_source} if of_source else {}),
            **self.compute.identity(),
        }

    def columns(self) -> CellColumns:
        """Return the columns that describe the cell in tables and DataFrames."""
        columns: CellColumns = {
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
        if self.defense.training_seed is not None:
            columns["training_seed"] = self.defense.training_seed
        if self.view.known:
            columns["seed_known"] = True
        if not self.compute.plain:
            columns["compute"] = self.compute.label
        return columns

    @property
    def view_label(self) -> str:
        """Return the label of the view; null attacks use no view, and that of precomputed images is unknown."""
        if self.attack.is_null:
            return f"{DEPLOYED}{KNOWN}" if self.view.known else DEPLOYED
        if self.attack.is_precomputed:
            return GIVEN
        copies = self.attack.copies
        if copies is None:
            return self.view.label(self.defense.stochastic, has_runs=self.defense.has_runs)
        runs = self.view.runs or (None if copies.on_top or self.view.known else 1)
        return self.view.label(self.defense.stochastic, has_runs=self.defense.has_runs, eot=copies.a_step, runs=runs)

    def noise_seed(self, purpose: str) -> int:
        """Return a 63-bit seed for one purpose ("view", "attack") of this cell alone, the same in every arithmetic."""
        key = self.key if self.compute.plain else replace(self, compute=Compute()).key  # so that results are paired
        digest = hashlib.sha256(f"{key}/{purpose}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1


def title_of(label: str, training_seed: int) -> str:
    """Return the title of a defense that is trained with several seeds."""
    return f"{label} (training seed {training_seed})"


def label_of(title: str) -> str:
    """Return the label of a defense from its title, which may name a training seed."""
    return title.partition(" (training seed")[0]


def digest(fingerprint: object) -> str:
    """Return the key of a defense: 20 hex digits of a hash of its fingerprint."""
    return checksums.digest(canonical(fingerprint), compact=True)[:20]


def row_of(cell: Cell) -> str:
    """Return the row of a table that a cell belongs to, as text.

    Cells of a row differ in their images, and where a defense is trained with several seeds in the training.
    """
    return f"{cell.threat} | {cell.defense.label} | {cell.attack.label} | {cell.view_label}"
