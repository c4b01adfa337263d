"""The options that the Python functions share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from inspect import signature
from numbers import Integral
from pathlib import Path
from typing import Any, TypedDict

from bench.board.schema import check
from bench.spec.cell import VerdictSpec
from bench.spec.compute import Compute
from defenses.utils.errors import UserError, check_whole, unknown
from defenses.utils.json_values import JsonView


class OptionKeywords(TypedDict, total=False):
    """The fields of `EvaluationOptions` as keyword arguments, for type checkers."""

    split: str
    batch_size: int
    draws: int
    selection: int
    seed: int
    stochastic: bool | None
    out: str | Path | None
    data_root: str | Path | None
    device: object
    name: str | None
    quiet: bool
    compute: Compute | JsonView


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """The options that `benchmark`, `judge`, `run_preset`, `audit_defense` and `certify` take as keyword arguments.

    Args:
        split: split of the data set.
        batch_size: images that an attack sees at once, at least 1; results of attack libraries depend on it.
        draws: number of held-out draws of a stochastic model, odd.
        selection: number of further draws, on which the worst attack is chosen.
        seed: seed of attacks and draws.
        stochastic: True if the outputs of a module that is no `Defense` are random; None: try three states of the
            global generators.
        out: results folder, for resuming a run; None: results are not kept. A run is resumed for the same model only,
            see `bench.board.defense_entry.describe_loaded`.
        data_root: where data sets lie.
        device: device to which the model is moved, as "cuda:0"; None: it stays where it is.
        name: name of the model in tables and messages; None: its name in the registry, or of its class.
        quiet: show no progress.
        compute: arithmetic of the attacks' search, as {"precision": "bf16"}; of `benchmark` and `run_preset` alone.

    Raises:
        UserError: a value of the wrong kind or out of range.
    """

    split: str = "test"
    batch_size: int = 100
    draws: int = 15
    selection: int = 8
    seed: int = 0
    stochastic: bool | None = None
    out: Path | None = None
    data_root: Path | None = None
    device: object = None
    name: str | None = None
    quiet: bool = True
    compute: Compute = field(default_factory=Compute)

    def __post_init__(self) -> None:
        for key in ("batch_size", "draws", "selection", "seed"):
            object.__setattr__(self, key, plain_int(getattr(self, key)))
        for key in ("out", "data_root"):
            value = getattr(self, key)
            object.__setattr__(self, key, None if value is None else Path(value))
        check_whole(1, batch_size=self.batch_size)
        if self.name is not None:
            check("defense", {"label": self.name}, partial=True)
        check("board", {"split": self.split}, partial=True)
        if not isinstance(self.compute, Compute):
            object.__setattr__(self, "compute", Compute(**check("compute", self.compute)))
        if self.stochastic not in (None, True, False):
            raise UserError(f"stochastic is {self.stochastic!r}; it must be True, False or None (which tries)")

    @property
    def verdict(self) -> VerdictSpec:
        """Return the draws of a verdict."""
        return VerdictSpec(self.draws, self.selection)


def options_of(
    function: Callable[..., Any], keywords: JsonView, *, without: tuple[str, ...] = (), **defaults: Any
) -> EvaluationOptions:
    """Return the options that a call gives.

    Args:
        function: that is called; its name and arguments are for messages.
        keywords: the keyword arguments that are no arguments of its own.
        without: options that it does not have.
        **defaults: in place of those of `EvaluationOptions`.

    Raises:
        UserError: an unknown option, or a value of the wrong kind or out of range.
    """
    known = [option.name for option in fields(EvaluationOptions) if option.name not in without]
    for key in keywords:
        if key not in known:
            arguments = [name for name, p in signature(function).parameters.items() if p.kind != p.VAR_KEYWORD]
            if key == "norm" and "threat_model" in arguments:
                raise UserError(f'{function.__name__} takes the norm as threat_model="Linf", not as norm')
            raise unknown(f"argument of {function.__name__}", key, [*arguments, *known])
    return replace(EvaluationOptions(**defaults), **keywords)


def plain_int(value: Any) -> Any:
    """Return a whole number of any type, as NumPy's, as Python's; anything else as it is."""
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else value
