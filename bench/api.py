"""The Python entry points: `benchmark` and `clean_accuracy`."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.board import AttackEntry, Board
from bench.cell import DefenseRef, VerdictSpec
from bench.threat import ThreatModel
from bench.viewspec import ViewSpec
from defenses.errors import UserError
from defenses.registry import canonical

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from torch import nn

    from defenses.base import Defense


def benchmark(
    model: nn.Module | str,
    *,
    dataset: str = "digits",
    threat_model: str | ThreatModel = "Linf",
    eps: str | float | None = None,
    attacks: Sequence[str | Mapping[str, Any]] = ("autoattack:standard",),
    views: Sequence[ViewSpec] = (ViewSpec(),),
    n_examples: int | None = None,
    split: str = "test",
    batch_size: int = 100,
    draws: int = 15,
    selection: int = 8,
    seed: int = 0,
    stochastic: bool | None = None,
    out: str | Path | None = None,
    data_root: str | Path | None = None,
    name: str | None = None,
    quiet: bool = True,
) -> pd.DataFrame:
    """Attack a model and judge it; the results as a DataFrame.

    Args:
        model: a module from images float32 [B, C, H, W] in [0, 1] to logits [B, K], in evaluation mode; a `Defense`;
            or a name for `load_model`.
        dataset: name or .npz path.
        threat_model: norm "Linf", "L2", "L1", "L0", or a whole `ThreatModel` (then leave `eps` out).
        eps: radius, as "8/255".
        attacks: names as "autoattack:standard", or {"name": ..., parameters by the library's names}.
        views: how the attacks look at a stochastic model.
        n_examples: the first n images; None: all.
        split: of the data set.
        batch_size: images that an attack sees at once; results of attack libraries depend on it.
        draws: held-out draws of a stochastic model.
        selection: further draws on which the worst attack is chosen.
        seed: of everything.
        stochastic: whether a foreign module is random; None: try three states of the global generators.
        out: a results folder, to resume and to keep; None: nothing is kept.
        data_root: where data sets lie.
        name: of the model, for tables.
        quiet: show no progress.

    Returns:
        One row per image and attack, as `load_results`; the null attacks "none" and "uniform" are among them.

    Raises:
        UserError: bad input.
        RuntimeError: nothing could be judged, with the first error.
    """
    from bench.results import load_results
    from bench.run import Options, run_board

    threat = _threat(threat_model, eps)
    defense, reference = _reference(model, dataset, stochastic, name, data_root)
    board = Board(
        name=reference.label,
        title=reference.label,
        dataset=dataset,
        threats=(threat,),
        defenses=(reference,),
        attacks=tuple(_entry(a, tuple(views)) for a in attacks),
        split=split,
        indices="all" if n_examples is None else f"first-{n_examples}",
        block=batch_size,
        verdict=VerdictSpec(draws, selection),
        seed=seed,
        threads=_threads(),
    )
    options = Options(
        data_root=None if data_root is None else Path(data_root), quiet=quiet, loaded={reference.label: defense}
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if out is None else Path(out)
        errors = run_board(board, folder, options)
        frame = load_results(folder)
    if errors and not (frame["attack"] != "none").any():
        raise RuntimeError(f"nothing could be judged: {errors[0]}")
    for line in errors:
        import warnings

        warnings.warn(line, stacklevel=2)
    return frame


def clean_accuracy(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, batch_size: int = 100, device: Any = None
) -> float:
    """The fraction of images that a model gets right, in one draw.

    Args:
        model: module from images to logits.
        x: images, float32 [N, C, H, W] in [0, 1].
        y: labels, int64 [N].
        batch_size: images at once.
        device: where to compute; None: where the model is.

    Returns:
        In [0, 1].

    Raises:
        UserError: x and y differ in length, or x is outside [0, 1].
    """
    import torch

    if len(x) != len(y) or len(x) == 0:
        raise UserError(f"there are {len(x)} images and {len(y)} labels; there must be as many, and at least one")
    if not bool(((x >= 0) & (x <= 1)).all()):
        raise UserError(f"images lie in [{float(x.min()):.3g}, {float(x.max()):.3g}]; scale them to [0, 1]")
    where = device or next((p.device for p in model.parameters()), torch.device("cpu"))
    right = 0
    with torch.no_grad():
        for part, labels in zip(x.split(batch_size), y.split(batch_size), strict=True):
            right += int((model(part.to(where)).argmax(1).cpu() == labels.cpu()).sum())
    return right / len(x)


def _threat(threat_model: str | ThreatModel, eps: str | float | None) -> ThreatModel:
    if isinstance(threat_model, ThreatModel):
        if eps is not None:
            raise UserError("eps is given twice; leave it out, the ThreatModel has one")
        return threat_model
    if eps is None:
        raise UserError('eps is missing; give it as eps="8/255"')
    return ThreatModel(threat_model, eps)  # type: ignore[arg-type]


def _entry(attack: str | Mapping[str, Any], views: tuple[ViewSpec, ...]) -> AttackEntry:
    given = {"name": attack} if isinstance(attack, str) else dict(attack)
    if "name" not in given:
        raise UserError('an attack has no name; write {"name": "autoattack:apgd-ce", ...}')
    name, label = given.pop("name"), given.pop("label", None)
    return AttackEntry(name, label or name, canonical(given), views)


def _reference(
    model: nn.Module | str, dataset: str, stochastic: bool | None, name: str | None, root: str | Path | None
) -> tuple[Defense, DefenseRef]:
    from bench.describe import describe, describe_loaded
    from defenses.base import Defense, Foreign
    from defenses.registry import is_plugin, load_model

    if isinstance(model, str) and not is_plugin(model):
        return load_model(model, dataset), describe({"name": model, "label": name or model}, dataset)
    loaded: nn.Module = load_model(model, dataset) if isinstance(model, str) else model
    if isinstance(loaded, Foreign):
        loaded = loaded.module
    if not isinstance(loaded, Defense):
        if any(m.training for m in loaded.modules()):
            raise UserError(f"{name or type(loaded).__name__} is in train mode; call model.eval() first")
        loaded = Foreign(loaded, stochastic=_is_random(loaded, dataset, root) if stochastic is None else stochastic)
    label = name or type(getattr(loaded, "module", loaded)).__name__
    code = hashlib.sha256(_source(getattr(loaded, "module", loaded)).encode()).hexdigest()
    return loaded, describe_loaded(loaded, label, name=model if isinstance(model, str) else label, code=code)


def _is_random(model: nn.Module, dataset: str, root: str | Path | None) -> bool:
    from bench.checks import looks_random
    from bench.data import load_dataset

    try:
        return looks_random(model, load_dataset(dataset, root=root).x[:8])
    except (RuntimeError, ValueError, IndexError, TypeError):
        return False  # the model check will say what is wrong


def _source(model: nn.Module) -> str:
    import inspect

    try:
        return inspect.getsource(type(model))
    except (OSError, TypeError):
        return ""


def _threads() -> int:
    import torch

    return torch.get_num_threads()
