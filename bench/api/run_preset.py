"""Run a published protocol on a model that Python code gives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from bench.api.arguments import plain_int
from bench.api.run import results_of_board
from bench.board.from_names import board_of_names
from bench.board.given_model import given_data, given_model
from bench.board.indices import first_images
from bench.board.presets import find_preset
from bench.execution.options import Options
from defenses.utils.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


def run_preset(
    preset: str,
    model: nn.Module | str,
    dataset: Any = "digits",
    *,
    eps: str | float | None = None,
    norm: str | None = None,
    n_examples: int | None = None,
    indices: str | None = None,
    stochastic: bool | None = None,
    out: str | Path | None = None,
    data_root: str | Path | None = None,
    device: Any = None,
    name: str | None = None,
    quiet: bool = True,
) -> pd.DataFrame:
    """Attack a model by a published protocol and judge it, as `purebench run --preset`; return the results.

    Args:
        preset: name of the protocol (purebench ls presets).
        model: a module from images float32 [B, C, H, W] in [0, 1] to logits [B, K], in evaluation mode; a `Defense`;
            or a name for `load_model`.
        dataset: name or .npz path, or (x, y) of tensors or NumPy arrays.
        eps: radius on pixels in [0, 1], as "8/255"; None: that of the preset, on the data sets for which it has one.
        norm: "Linf", "L2" or "L1"; None: the first of the preset.
        n_examples: number of images, from the first, in place of `indices`.
        indices: index list, as "first-100"; None: that of the preset on its data sets, else all images.
        stochastic: True if the outputs of a module that is no `Defense` are random; None: try.
        out: results folder, for resuming a run; None: results are not kept.
        data_root: where data sets lie.
        device: device to which the model is moved; None: it stays where it is.
        name: name of the model in tables; None: its name in the registry, or of its class.
        quiet: show no progress.

    Returns:
        The frame of `benchmark`.

    Raises:
        UserError: bad input, a preset that does not fit, or no radius.
        RuntimeError: no attack could be judged; it names the first reason.
    """
    if n_examples is not None and indices is not None:
        raise UserError("the images are named twice; leave out n_examples or indices")
    listed = indices if n_examples is None else first_images(plain_int(n_examples))
    root, dataset = None if data_root is None else Path(data_root), given_data(dataset, model)
    defense, reference = given_model(
        model,
        dataset,
        norm=norm or find_preset(preset).norms[0],
        stochastic=stochastic,
        name=name,
        data_root=root,
        device=device,
        resumable=out is not None,
    )
    board = board_of_names(
        dataset=dataset,
        defenses=(reference,),
        preset=preset,
        eps=None if eps is None else str(eps),
        norm=norm,
        indices=listed,
        data_root=root,
    )
    return results_of_board(board, Options(data_root=root, quiet=quiet, loaded={reference.title: defense}), out)
