"""Options of a run; none of them changes a result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench.spec.shard import Shard
from defenses.utils.validation import Positive, under, validated

if TYPE_CHECKING:
    from defenses.core.defense import Defense


@dataclass(frozen=True)
class RayOptions:
    """Options of a run on a Ray cluster.

    Args:
        address: "auto" for the cluster of this machine, or HOST:PORT of its head.
        workers: number of actors; None: as many as fit.
        gpus: GPUs of each, as 0.5; None: 1 where models run on an accelerator, else 0.
    """

    address: str
    workers: int | None = None
    gpus: float | None = None


@dataclass(frozen=True)
class Options:
    """Options of a run; none of them changes a result.

    Args:
        data_root: where data sets lie.
        weights_root: where weights are looked for first.
        workers: number of worker processes; 0: cells run in this process, without limits.
        device: where models run, as "cuda:0"; bit-equal repetition is promised on the CPU alone.
        defenses: labels of the defenses to run; empty: all.
        attacks: labels of the attacks to run; empty: all.
        shard: the part of the board to run, as "3/16"; None: all of it.
        retry_errors: run cells again that ended in an error, or some of whose images did.
        quiet: show no progress.
        loaded: defenses in memory, by title; their cells run in this process.
        time_limit: seconds that a cell may take; None: the limit of the board.
        memory: GiB that a worker process may hold; None: its share of the available memory.
        resume_anyway: take over results of defenses and attacks that cannot be identified; their rows are marked.
        ray: cells run on a Ray cluster, and `workers` is not read; None: they run on this machine.
        probabilities: titles of defenses that are run although they may return probabilities; their rows are marked.

    Raises:
        UserError: a limit is not a positive number, or there is no such shard.
    """

    data_root: Path | None = None
    weights_root: Path | None = None
    workers: int = 1
    device: str = "cpu"
    defenses: tuple[str, ...] = ()
    attacks: tuple[str, ...] = ()
    shard: str | None = None
    retry_errors: bool = False
    quiet: bool = False
    loaded: Mapping[str, Defense] = field(default_factory=dict)
    time_limit: float | None = None
    memory: float | None = None
    resume_anyway: bool = False
    ray: RayOptions | None = None
    probabilities: frozenset[str] = frozenset()

    @property
    def whole_shard(self) -> str | None:
        """The shard, where all of it is run; None where rows are chosen."""
        return None if self.defenses or self.attacks else self.shard

    def __post_init__(self) -> None:
        if self.shard is not None:
            Shard.parse(self.shard)
        for name in ("time_limit", "memory"):
            validated(Positive | None, getattr(self, name), name=under(name))
