"""Judge adversarial images that somebody else made, on a model that Python code gives."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from bench.api.arguments import check_options, plain_int, threats_of
from bench.api.run import results_of_board
from bench.attacks.precomputed_files import PrecomputedImages, given_images, read_precomputed
from bench.board.given_model import given_data, given_model
from bench.board.precomputed import JudgeOptions, judge_board, unchanged
from bench.execution.options import Options
from bench.spec.aggregation import Aggregation
from bench.spec.cell import VerdictSpec
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
    split: str = "test",
    indices: str | None = None,
    label: str = "given",
    draws: int = 65,
    selection: int = 16,
    k: int | None = None,
    batch_size: int = 100,
    seed: int = 0,
    minimisation: bool = False,
    stochastic: bool | None = None,
    out: str | Path | None = None,
    data_root: str | Path | None = None,
    device: Any = None,
    name: str | None = None,
    quiet: bool = True,
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
        split: split of the data set.
        indices: index list, as "first-1000", in whose order images without an index are.
        label: name of the images in tables.
        draws: number of held-out draws of a stochastic model, odd.
        selection: number of further draws, on which the worst is chosen.
        k: draws of the majority and the mean logit, the first ones; None: all.
        batch_size: images of a cell, at least 1.
        seed: seed of the draws.
        minimisation: images beyond eps count as failed, not as errors.
        stochastic: True if the outputs of a module that is no `Defense` are random; None: try.
        out: results folder; None: results are not kept.
        data_root: where data sets lie.
        device: device to which the model is moved; None: it stays where it is.
        name: name of the model in tables; None: its name in the registry, or of its class.
        quiet: show no progress.

    Returns:
        The frame of `benchmark`.

    Raises:
        UserError: bad input, or images that are not those of the data set.
        RuntimeError: no image could be judged.
    """
    check_options(batch_size=batch_size, name=name, split=split, stochastic=stochastic)
    (threat,) = threats_of(threat_model, eps)
    parts = _read(images, label, threat)
    root, dataset = None if data_root is None else Path(data_root), given_data(dataset, model)
    options: dict[str, Any] = {"split": split, "stochastic": stochastic, "name": name, "data_root": root}
    defense, reference = given_model(
        model, dataset, norm=threat.norm, device=device, resumable=out is not None, **options
    )
    request = JudgeOptions(
        defenses=(reference,), threat=threat, dataset=dataset, split=split, indices=indices, protocols=Aggregation(k=k),
        verdict=VerdictSpec(plain_int(draws), plain_int(selection)), seed=plain_int(seed), block=plain_int(batch_size),
        minimisation=minimisation, data_root=root,
    )  # fmt: skip
    return _judged(parts, request, Options(data_root=root, quiet=quiet, loaded={reference.title: defense}), out)


def _judged(
    parts: list[PrecomputedImages], request: JudgeOptions, run: Options, out: str | Path | None
) -> pd.DataFrame:
    """Return the results of images, and print what is to be said of them."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if out is None else Path(out)
        with judge_board(parts, request, f"judge-{file_name(parts[0].label)}", folder) as board:
            frame = results_of_board(board, run, folder)
        notes = [*dict.fromkeys(note for part in parts for note in part.notes)]
        notes += [f"{of}: every image is the clean one, so nothing was attacked" for of in unchanged(folder, parts)]
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    return frame


def _read(images: Any, label: str, threat: ThreatModel) -> list[PrecomputedImages]:
    """Return the images of arrays or of a file."""
    if isinstance(images, str | Path):
        return read_precomputed(Path(images), f"{threat.norm} {threat.eps}")
    if not isinstance(images, Mapping) and not hasattr(images, "shape"):
        raise UserError(f"the images are a {type(images).__name__}; give a tensor or array [N, C, H, W], or a file")
    return [given_images(images, label)]
