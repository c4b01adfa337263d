"""Run a published protocol on a model that Python code gives."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack

from torch import nn

from bench.api.run import results_of_board
from bench.board.evaluation_options import OptionKeywords, options_of, plain_int
from bench.board.from_names import board_of_names
from bench.board.given_model import given_data, given_model
from bench.board.indices import first_images
from bench.board.presets import find_preset
from defenses.utils.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

_WITHOUT = ("split", "batch_size", "draws", "selection", "seed")  # the protocol says them


def run_preset(
    preset: str,
    model: nn.Module | str,
    dataset: Any = "digits",
    *,
    eps: str | float | None = None,
    norm: str | None = None,
    n_examples: int | None = None,
    indices: str | None = None,
    **options: Unpack[OptionKeywords],
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
        **options: stochastic, out, data_root, device, name, quiet and compute of
            `bench.EvaluationOptions`.

    Returns:
        The frame of `benchmark`.

    Raises:
        UserError: bad input, a preset that does not fit, or no radius.
        RuntimeError: no attack could be judged; it names the first reason.
    """
    if n_examples is not None and indices is not None:
        raise UserError("the images are named twice; leave out n_examples or indices")
    listed = indices if n_examples is None else first_images(plain_int(n_examples))
    evaluation, dataset = options_of(run_preset, options, without=_WITHOUT), given_data(dataset, model)
    defense, reference = given_model(model, dataset, evaluation, norm=norm or find_preset(preset).norms[0])
    board = board_of_names(
        dataset=dataset,
        defenses=(reference,),
        preset=preset,
        eps=None if eps is None else str(eps),
        norm=norm,
        indices=listed,
        data_root=evaluation.data_root,
    )
    board = replace(board, compute=evaluation.compute)
    return results_of_board(board, reference, defense, evaluation)
