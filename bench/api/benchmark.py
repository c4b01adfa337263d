"""The Python entry points: `benchmark` and `clean_accuracy`."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.api.arguments import check_batch_size, defense_of, entries_of, threat_of, views_of
from bench.api.robustbench_arguments import translated
from bench.board.board import Board
from bench.board.indices import first_images
from bench.board.schema import check
from bench.spec.cell import NULLS, VerdictSpec
from bench.spec.view import ViewSpec
from defenses.utils.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from torch import nn

    from bench.board.attack_entry import AttackEntry
    from bench.spec.cell import DefenseRef
    from bench.spec.threat import ThreatModel
    from defenses.core.defense import Defense


def benchmark(
    model: nn.Module | str,
    n_examples: int | None = None,
    dataset: Any = "digits",
    threat_model: Any = "Linf",
    *,
    eps: str | float | None = None,
    attacks: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]] = ("autoattack:standard",),
    views: ViewSpec | Mapping[str, Any] | Sequence[ViewSpec | Mapping[str, Any]] = (),
    split: str = "test",
    batch_size: int = 100,
    draws: int = 15,
    selection: int = 8,
    seed: int = 0,
    stochastic: bool | None = None,
    out: str | Path | None = None,
    data_root: str | Path | None = None,
    device: Any = None,
    name: str | None = None,
    quiet: bool = True,
    **robustbench: Any,
) -> pd.DataFrame:
    """Attack a model, judge it and return the results as a DataFrame; takes RobustBench's arguments too.

    Args:
        model: a module from images float32 [B, C, H, W] in [0, 1] to logits [B, K], in evaluation mode; a `Defense`;
            or a name for `load_model` (of RobustBench's zoo: the models of the norm).
        n_examples: the first n images; None: all.
        dataset: name or .npz path, or RobustBench's enum.
        threat_model: norm "Linf", "L2", "L1", "L0", RobustBench's enum, or a whole `ThreatModel` (then leave `eps`
            out).
        eps: radius, as "8/255" or 8 / 255.
        attacks: one or several: names as "autoattack:standard", or {"name": ..., "label": ..., parameters by the
            library's names}. Where a name occurs twice, parameters are added to the labels.
        views: how the attacks look at a stochastic model: one or several, each a `ViewSpec` or as in a board
            ({"gradient": "bpda", "eot": 8}); none: the one of the deployed model.
        split: of the data set.
        batch_size: images that an attack sees at once; results of attack libraries depend on it.
        draws: held-out draws of a stochastic model.
        selection: further draws on which the worst attack is chosen.
        seed: of everything.
        stochastic: whether a foreign module is random; None: try three states of the global generators.
        out: a results folder, to resume and to keep; None: nothing is kept. Results are taken up again for the same
            model only, see `bench.board.defense_entry.describe_loaded`.
        data_root: where data sets lie.
        device: where to compute; the model is moved there. None: where it is.
        name: of the model, for tables.
        quiet: show no progress.
        **robustbench: its names data_dir (data_root), model_name (name) and preprocessing (of ImageNet, part of the
            data set's name here); its other arguments at their defaults.

    Returns:
        One row per image and attack, as `load_results`; the null attacks "none" and "uniform" are among them. What
        could not be judged (status "error" or "unsupported") has accuracy NaN, and there is a warning for it. The
        column `warnings` is as in tables.csv: of short budgets, and of exact gradients without a passed certificate,
        for which there is a warning too. Certificates are measured before any attack.

    Raises:
        UserError: bad input, or a `Defense` that declares exact gradients and has none.
        RuntimeError: no attack could be judged, with the first reason.
    """
    from bench.board.defense_entry import describe_loaded
    from bench.evaluation.devices import device_named

    _check_options(batch_size, name, split, stochastic)
    dataset, threat_model, named = translated(dataset, threat_model, robustbench)
    name, data_root = named.get("name", name), named.get("data_root", data_root)
    root = None if data_root is None else Path(data_root)
    threat, entries = threat_of(threat_model, eps), entries_of(attacks, views_of(views))
    defense = defense_of(model, dataset, threat, split=split, stochastic=stochastic, name=name, root=root)
    if device is not None:
        defense.to(device_named(str(device)))
    reference = describe_loaded(defense, name, name=model if isinstance(model, str) else "", resumable=out is not None)
    data = {"dataset": dataset, "split": split, "indices": first_images(n_examples), "data_root": root}
    rules = {"verdict": VerdictSpec(draws, selection), "block": batch_size, "seed": seed}
    return _judged(_board(reference, threat, entries, **data, **rules), defense, out, quiet=quiet)


def _check_options(batch_size: object, name: str | None, split: str, stochastic: object) -> None:
    """Refuse values of the wrong kind by the arguments' own names."""
    check_batch_size(batch_size)
    if name is not None:
        check("defense", {"label": name})
    check("board", {"split": split})
    if stochastic not in (None, True, False):
        raise UserError(f"stochastic is {stochastic!r}; it must be True, False or None (which tries)")


def _board(reference: DefenseRef, threat: ThreatModel, entries: tuple[AttackEntry, ...], **options: Any) -> Board:
    """Return the board of one defense and one threat model, on torch's number of threads."""
    import torch

    label, threads = reference.label, torch.get_num_threads()
    parts: dict[str, Any] = {"threats": (threat,), "defenses": (reference,), "attacks": entries}
    return Board(name=label, title=label, threads=threads, **parts, **options)


def _judged(board: Board, defense: Defense, out: str | Path | None, *, quiet: bool) -> pd.DataFrame:
    """Run a board on a defense in memory and return its records, with warnings of what could not be judged.

    Raises:
        RuntimeError: no attack could be judged.
    """
    from bench.analysis.caveats import uncertified
    from bench.analysis.results import load_cells, load_results
    from bench.execution.options import Options
    from bench.execution.run_board import run_board
    from bench.report.footnotes import with_warnings
    from bench.store.manifest import read_manifest

    options = Options(data_root=board.data_root, quiet=quiet, loaded={board.name: defense})
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if out is None else Path(out)
        run_board(board, folder, options)
        frame, cells = load_results(folder), load_cells(folder)
        reasons = uncertified(folder, cells, read_manifest(folder))
    problems = _problems(cells)
    if not frame.loc[~frame["attack"].isin(NULLS), "accuracy"].notna().any():
        raise RuntimeError(f"nothing could be judged: {next(iter(problems.values()), 'no attack has run')}")
    caveats = [f"{label}: exact gradients that nothing certifies ({reason})" for label, reason in reasons.items()]
    for problem in (*problems.values(), *caveats):
        warnings.warn(problem, stacklevel=3)
    return with_warnings(frame, cells, reasons)


def _problems(cells: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Return one line for each attack and view that had a problem, about its first block with one."""
    problems: dict[tuple[str, str], str] = {}
    for cell in cells[cells["error"].notna()].to_dict("records"):
        kind = "" if cell["status"] == "ok" else f"{cell['status']}: "
        problems.setdefault((cell["attack"], cell["view"]), f"{cell['attack']} | {cell['view']}: {kind}{cell['error']}")
    return problems


def clean_accuracy(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, batch_size: int = 100, device: Any = None
) -> float:
    """Return the fraction of images that a model classifies correctly, in one draw.

    Args:
        model: module from images to logits.
        x: images, float32 [N, C, H, W] in [0, 1].
        y: labels, int64 [N].
        batch_size: images at once.
        device: where to compute; None: where the model is.

    Returns:
        In [0, 1].

    Raises:
        UserError: x and y differ in length, x is outside [0, 1], or batch_size is no whole number, at least 1.
    """
    import torch

    check_batch_size(batch_size)
    if len(x) != len(y) or len(x) == 0:
        raise UserError(f"there are {len(x)} images and {len(y)} labels; there must be as many, and at least one")
    if not bool(((x >= 0) & (x <= 1)).all()):
        raise UserError(f"images lie in [{float(x.min()):.3g}, {float(x.max()):.3g}]; scale them to [0, 1]")
    from bench.evaluation.devices import device_named

    own = next((p.device for p in model.parameters()), torch.device("cpu"))
    where = own if device is None else device_named(str(device))
    right = 0
    with torch.no_grad():
        for part, labels in zip(x.split(batch_size), y.split(batch_size), strict=True):
            right += int((model(part.to(where)).argmax(1).cpu() == labels.cpu()).sum())
    return right / len(x)
