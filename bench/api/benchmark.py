"""The Python entry point `benchmark`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from bench.api.arguments import attack_entries, board_of, threats_of, views_of
from bench.api.robustbench_arguments import refuse_unpacking, translated
from bench.api.run import results_of_board
from bench.board.evaluation_options import options_of, plain_int
from bench.board.given_model import given_data, given_model
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
    attacks: str | Mapping[str, object] | Sequence[str | Mapping[str, object]] = ("autoattack:standard",),
    views: ViewSpec | Mapping[str, object] | Sequence[ViewSpec | Mapping[str, object]] = (),
    **options: object,
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
        **options: those of `bench.EvaluationOptions`: split, batch_size, draws, selection, seed, stochastic, out,
            data_root, device, name, quiet, compute. And RobustBench's data_dir (data_root), model_name
            (name), verbose (not quiet) and preprocessing (for ImageNet, whose name it is appended to); its other
            arguments at their defaults.

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
    dataset, threat_model, ours = translated(given_data(dataset, model), threat_model, options)
    evaluation, threats = options_of(benchmark, ours), threats_of(threat_model, eps)
    entries = attack_entries(attacks, views_of(views))
    defense, reference = given_model(model, dataset, evaluation, norm=threats[0].norm)
    board = board_of(reference, entries, threats, dataset, plain_int(n_examples), evaluation)
    return results_of_board(board, reference, defense, evaluation)
