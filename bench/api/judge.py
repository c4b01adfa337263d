"""Judge adversarial images that somebody else made, on a model that Python code gives."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from torch import nn

from bench.api.arguments import threats_of
from bench.api.run import results_of_board
from bench.attacks.precomputed_files import PrecomputedImages, given_images, read_precomputed
from bench.board.evaluation_options import OptionKeywords, options_of
from bench.board.given_model import given_data, given_model
from bench.board.precomputed import JudgeOptions, judge_board
from bench.spec.aggregation import Aggregation
from bench.spec.threat import ThreatModel
from defenses.utils.errors import UserError
from defenses.utils.text import file_name

if TYPE_CHECKING:
    import pandas as pd


def judge(
    images: Any,
    model: nn.Module | str,
    dataset: Any = "digits",
    threat_model: str | ThreatModel = "Linf",
    *,
    eps: str | float | None = None,
    indices: str | None = None,
    label: str = "given",
    k: int | None = None,
    minimisation: bool = False,
    **options: Unpack[OptionKeywords],
) -> pd.DataFrame:
    """Judge adversarial images on a model, as `purebench judge`; return the results.

    Args:
        images: adversarial images [N, C, H, W], a tensor or NumPy array, those of the first N images of the split or
            of `indices`; or a mapping with x_adv and optionally index (positions in the split) and y (labels); or the
            path of such a file (.npz, .npy, .pt, .safetensors).
        model: a module from images float32 [B, C, H, W] in [0, 1] to logits [B, K], in evaluation mode; a `Defense`;
            or a name for `load_model`.
        dataset: of the clean images: name or .npz path, or (x, y) of tensors or NumPy arrays.
        threat_model: norm "Linf", "L2", "L1" or "L0", or a `ThreatModel` (without `eps` then).
        eps: radius on pixels in [0, 1], as "8/255".
        indices: index list, as "first-1000", in whose order images without an index are.
        label: name of the images in tables.
        k: draws of the majority and the mean logit, the first ones; None: all.
        minimisation: images beyond eps count as failed, not as errors.
        **options: those of `bench.EvaluationOptions`, with 65 draws and a selection of 16 where they are not given.

    Returns:
        The frame of `benchmark`.

    Raises:
        UserError: bad input, or images that are not those of the data set.
        RuntimeError: no image could be judged.
    """
    evaluation = options_of(judge, options, without=("compute",), draws=65, selection=16)
    (threat,) = threats_of(threat_model, eps)
    parts, dataset = _read(images, label, threat), given_data(dataset, model)
    defense, reference = given_model(model, dataset, evaluation, norm=threat.norm)
    request = JudgeOptions(
        defenses=(reference,),
        threat=threat,
        dataset=dataset,
        split=evaluation.split,
        indices=indices,
        protocols=Aggregation(k=k),
        verdict=evaluation.verdict,
        seed=evaluation.seed,
        block=evaluation.batch_size,
        minimisation=minimisation,
        data_root=evaluation.data_root,
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = evaluation.out or Path(scratch)
        with judge_board(parts, request, f"judge-{file_name(parts[0].label)}", folder) as board:
            return results_of_board(board, reference, defense, replace(evaluation, out=folder))


def _read(images: object, label: str, threat: ThreatModel) -> list[PrecomputedImages]:
    """Return the images of arrays or of a file."""
    if isinstance(images, str | Path):
        return read_precomputed(Path(images), f"{threat.norm} {threat.eps}")
    if not isinstance(images, Mapping) and not hasattr(images, "shape"):
        raise UserError(f"the images are a {type(images).__name__}; give a tensor or array [N, C, H, W], or a file")
    return [given_images(images, label)]
