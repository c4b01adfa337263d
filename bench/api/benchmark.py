"""The Python entry points: `benchmark` and `clean_accuracy`."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bench.analysis.caveats import uncertified
from bench.analysis.results import load_cells, load_results
from bench.api.arguments import (
    as_defense,
    attack_entries,
    board_of,
    check_batch_size,
    check_options,
    classes_of,
    load,
    plain_int,
    threat_of,
    views_of,
)
from bench.api.arrays import saved_arrays
from bench.api.robustbench_arguments import translated
from bench.board.board import Board
from bench.board.defense_entry import describe_loaded
from bench.evaluation.model_checks import check_model, has_random_outputs, refuse_train_mode
from bench.execution.options import Options
from bench.execution.run_board import run_board
from bench.report.attack_warnings import with_warnings
from bench.spec.cell import NULLS, VerdictSpec
from bench.spec.view import ViewSpec
from bench.store.manifest import read_manifest
from defenses.core.defense import Defense, UserModule
from defenses.core.noise import Noise
from defenses.utils.devices import device_named
from defenses.utils.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


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
    """Attack a model and judge it; return the results. RobustBench's arguments of this function are accepted too.

    Args:
        model: a module from images float32 [B, C, H, W] in [0, 1] to logits [B, K], in evaluation mode; a `Defense`;
            or a name for `load_model` (of RobustBench's zoo: the models of the norm).
        n_examples: number of images, from the first, at least 1; None: all.
        dataset: name or .npz path, RobustBench's enum, or a pair (x, y) of tensors or NumPy arrays, which is kept as an
            .npz in the user's cache.
        threat_model: norm "Linf", "L2", "L1" or "L0", RobustBench's enum, or a `ThreatModel` (without `eps` then).
        eps: radius on pixels in [0, 1], as "8/255" or 8 / 255.
        attacks: one or several: names as "autoattack:standard", or {"name": ..., "label": ..., parameters by the
            library's names}. Where a name occurs twice, its parameters are added to the labels.
        views: views of a stochastic model: one or several, each a `ViewSpec` or a view of a board
            ({"gradient": "bpda", "eot": 8}); none: the deployed model.
        split: split of the data set.
        batch_size: images that an attack sees at once, at least 1; results of attack libraries depend on it.
        draws: number of held-out draws of a stochastic model, odd.
        selection: number of further draws, on which the worst attack is chosen.
        seed: seed of attacks and draws.
        stochastic: True if the outputs of a module that is no `Defense` are random; None: try three states of the
            global generators.
        out: results folder, for resuming a run; None: results are not stored. A run is resumed for the same model only,
            see `bench.board.defense_entry.describe_loaded`.
        data_root: where data sets lie.
        device: device to which the model is moved; None: it stays where it is.
        name: name of the model in tables; None: its name in the registry, or of its class.
        quiet: show no progress.
        **robustbench: RobustBench's data_dir (data_root), model_name (name) and preprocessing (for ImageNet, whose name
            it is appended to); its other arguments at their defaults.

    Returns:
        A row per image and attack, as `load_results`, with those of the null attacks "none" and "uniform". An image
        that was not judged (status "error" or "unsupported") has accuracy NaN, and there is a warning. The column
        `warnings`, as in tables.csv, names short budgets and exact gradients without a passed certificate, of which
        there is a warning too. Certificates are measured before any attack.

    Raises:
        UserError: bad input, or a `Defense` that declares exact gradients and has none.
        RuntimeError: no attack could be judged; it names the first reason.
    """
    check_options(batch_size=batch_size, name=name, split=split, stochastic=stochastic)
    n_examples, batch_size, draws, selection, seed = map(plain_int, (n_examples, batch_size, draws, selection, seed))
    if isinstance(dataset, tuple | list):
        dataset = saved_arrays(dataset, None if isinstance(model, str) else classes_of(model, dataset))
    dataset, threat_model, ours = translated(dataset, threat_model, robustbench)
    name, data_root = ours.get("name", name), ours.get("data_root", data_root)
    threat = threat_of(threat_model, eps)
    root = None if data_root is None else Path(data_root)
    entries = attack_entries(attacks, views_of(views))
    defense = as_defense(load(model, dataset, threat, root), dataset, split, stochastic, name, root)
    if device is not None:
        defense.to(device_named(str(device)))
    reference = describe_loaded(defense, name, name=model if isinstance(model, str) else "", resumable=out is not None)
    images: dict[str, Any] = {"split": split, "n_examples": n_examples, "batch_size": batch_size, "data_root": root}
    verdict = VerdictSpec(draws, selection)
    board = board_of(reference, entries, threat, dataset, verdict=verdict, seed=seed, **images)
    return _run(board, Options(data_root=root, quiet=quiet, loaded={reference.label: defense}), out)


def _run(board: Board, options: Options, out: str | Path | None) -> pd.DataFrame:
    """Run a board, warn of problems, and return its results with the column `warnings`."""
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
    """Return a line for each attack and view with a problem, about the first block that has one."""
    problems: dict[tuple[str, str], str] = {}
    for cell in cells[cells["error"].notna()].to_dict("records"):
        kind = "" if cell["status"] == "ok" else f"{cell['status']}: "
        problems.setdefault((cell["attack"], cell["view"]), f"{cell['attack']} | {cell['view']}: {kind}{cell['error']}")
    return problems


def clean_accuracy(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, batch_size: int = 100, device: Any = None
) -> float:
    """Return the accuracy of a model on images, in one draw.

    Args:
        model: module from images float32 [B, C, H, W] in [0, 1] to logits [B, K].
        x: images, float32 [N, C, H, W] in [0, 1].
        y: labels, int64 [N].
        batch_size: images of a batch, at least 1.
        device: device of the batches; None: that of the model.

    Returns:
        Fraction of correct predictions, in [0, 1].

    Raises:
        UserError: labels of another shape or length, no images, x outside [0, 1], a model that fails the checks of a
            run (train mode, wrong outputs, undeclared changes), or a bad batch size or device.
    """
    check_batch_size(batch_size)
    _check_images(x, y)
    present = next((p.device for p in model.parameters()), torch.device("cpu"))
    target = present if device is None else device_named(str(device))
    _check_classifier(model, x[:8].to(target), y)
    correct = 0
    with torch.no_grad():
        for batch, labels in zip(x.split(batch_size), y.split(batch_size), strict=True):
            correct += int((model(batch.to(target)).argmax(1).cpu() == labels.cpu()).sum())
    return correct / len(x)


def _check_images(x: torch.Tensor, y: torch.Tensor) -> None:
    """Refuse images outside [0, 1], and labels that are no whole numbers [N], one for each image."""
    if y.ndim != 1 or y.is_floating_point() or y.is_complex():
        raise UserError(f"labels are {y.dtype} {list(y.shape)}; they must be whole numbers, [N]: y.flatten().long()")
    if len(x) != len(y) or len(x) == 0:
        raise UserError(f"there are {len(x)} images and {len(y)} labels; there must be as many, and at least one")
    if not bool(((x >= 0) & (x <= 1)).all()):
        raise UserError(f"images lie in [{float(x.min()):.3g}, {float(x.max()):.3g}]; scale them to [0, 1]")


def _check_classifier(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    """Refuse a model that fails the checks of every command, or has fewer classes than the labels; it may be random."""
    defense = model
    if not isinstance(model, Defense):
        refuse_train_mode(model, type(model).__name__)
        defense = UserModule(model, stochastic=has_random_outputs(model, x))
    assert isinstance(defense, Defense)
    with torch.no_grad():
        logits = defense.logits(x, Noise.of(0, len(x), x.device))
    classes = logits.shape[-1] if isinstance(logits, torch.Tensor) and logits.ndim else 0
    check_model(defense, x, classes, type(model).__name__, probabilities=True)
    if not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise UserError(
            f"labels run from {int(y.min())} to {int(y.max())}, and the model has {classes} classes, from 0"
        )
