"""The Python entry point `benchmark`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from bench.api.arguments import attack_entries, board_of, check_options, plain_int, threats_of, views_of
from bench.api.robustbench_arguments import refuse_unpacking, translated
from bench.api.run import results_of_board
from bench.board.given_model import given_data, given_model
from bench.execution.options import Options
from bench.spec.cell import VerdictSpec
from bench.spec.view import ViewSpec

if TYPE_CHECKING:
    import pandas as pd


def benchmark(
    model: nn.Module | str,
    n_examples: int | None = None,
    dataset: Any = "digits",
    threat_model: Any = "Linf",
    *,
    eps: str | float | Sequence[str | float] | None = None,
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
        eps: radius on pixels in [0, 1], as "8/255" or 8 / 255; or a list of radii, each a setting of its own.
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
        quiet: show no progress; verbose=True, as other libraries have it, is quiet=False.
        **robustbench: RobustBench's data_dir (data_root), model_name (name) and preprocessing (for ImageNet, whose name
            it is appended to); its other arguments at their defaults.

    Returns:
        A row per image and attack, as `load_results`, with those of the null attacks "none" and "uniform". An image
        that was not judged (status "error" or "unsupported") has accuracy NaN, and there is a warning. The column
        `warnings`, as in tables.csv, names short budgets and exact gradients without a passed certificate, of which
        there is a warning too. Certificates are measured before any attack. `summary`, `table`, `worst_per_image` and
        `compare` take the frame; in a notebook it shows the table of the comparison. `clean_and_robust` makes of it the
        pair that RobustBench returns.

    Raises:
        UserError: bad input, or a `Defense` that declares exact gradients and has none.
        RuntimeError: no attack could be judged; it names the first reason.
    """
    refuse_unpacking(sys._getframe(1))
    check_options(batch_size=batch_size, name=name, split=split, stochastic=stochastic)
    n_examples, batch_size, draws, selection, seed = map(plain_int, (n_examples, batch_size, draws, selection, seed))
    own = list(signature(benchmark).parameters)[:-1]
    dataset, threat_model, ours = translated(given_data(dataset, model), threat_model, robustbench, own)
    name, quiet = ours.get("name", name), ours.get("quiet", quiet)
    data_root = ours.get("data_root", data_root)
    threats = threats_of(threat_model, eps)
    root = None if data_root is None else Path(data_root)
    entries = attack_entries(attacks, views_of(views))
    options: dict[str, Any] = {"split": split, "stochastic": stochastic, "name": name, "data_root": root}
    defense, reference = given_model(
        model, dataset, norm=threats[0].norm, device=device, resumable=out is not None, **options
    )
    images: dict[str, Any] = {"split": split, "n_examples": n_examples, "batch_size": batch_size, "data_root": root}
    verdict = VerdictSpec(draws, selection)
    board = board_of(reference, entries, threats, dataset, verdict=verdict, seed=seed, **images)
    return results_of_board(board, Options(data_root=root, quiet=quiet, loaded={reference.title: defense}), out)
