"""Evaluate detectors by the scores of a results folder.

Clean images are the test images of the board; adversarial ones are those that fool the classifier: mostly right before
the attack and mostly wrong after it, refused or not. The score of an image is its mean over held-out draws. Under all
attacks together the attack on each image is chosen on selection draws and counted on held-out ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from bench.analysis.columns import with_columns
from bench.analysis.public_names import public
from bench.analysis.results import load_cells, load_draws, load_results
from bench.spec.cell import NULLS
from bench.stats.detection import auroc, auroc_interval, detected
from bench.stats.proportions import wilson
from bench.stats.worst_case import worst_case
from bench.store.kinds import folder_named
from defenses.utils.errors import UserError

SETTING = ("dataset", "split", "indices", "norm", "eps", "targets", "defense", "training_seed")
ALL = "all attacks together"  # but for uniform noise and those that know the judged draw
RATES = (0.01, 0.05)  # false positive rates
_COLUMNS = {
    **dict.fromkeys(SETTING, "str"),
    "training_seed": "int64",
    "attack": "str",
    "view": "str",
    "n_images": "int64",
    **{
        f"{share}{end}": "float64"
        for share in ("right_accepted", "clean_refused", "right_or_refused")
        for end in ("", "_low", "_high")
    },
    "n_fooled": "float64",
    **{f"{share}{end}": "float64" for share in ("auroc", "tpr_at_1", "tpr_at_5") for end in ("", "_low", "_high")},
}
# Per image: shares of its draws, and its mean score.
_IMAGE = ("right", "wrong", "refused", "kept", "accepted", "score")


@with_columns
def detection(folder: str | Path) -> pd.DataFrame:
    """Return the metrics of detectors by setting, guarded defense, attack and view, and under all attacks together.

    Args:
        folder: a results folder.

    Returns:
        A row per setting, defense, training, attack and view, and one under all attacks together, on the images with a
        verdict of each that is supported: NaN where one of them is missing. Intervals are Wilson's, n = images (of
        rates at a fixed threshold: adversarial images), of AUROC a bootstrap over images. NaN: undefined.
        Columns: those of `purebench columns detection`.

    Raises:
        UserError: no results there, a damaged file, or no defense with a detector.
    """
    path = folder_named(folder)
    images, planned = _images(path), _planned(path)
    rows: list[dict[str, object]] = []
    for names, group in images.groupby(list(SETTING), sort=False):
        setting = dict(zip(SETTING, names, strict=True))
        clean = group[group["attack"] == "none"].set_index("image")
        attacked = group[group["attack"] != "none"]
        by_row = {key: part.set_index("image") for key, part in attacked.groupby(["attack", "view"], sort=False)}
        rows += [setting | {"attack": a, "view": v} | _row(clean, part) for (a, v), part in by_row.items()]
        if len(together := planned.get(names, [])) > 1:
            rows.append(setting | {"attack": ALL, "view": ""} | _shares(clean, _worst(by_row, together)))
    return public(pd.DataFrame(rows, columns=list(_COLUMNS)).astype(_COLUMNS))


def _planned(folder: Path) -> dict[tuple[Any, ...], list[tuple[str, str]]]:
    """Return (attack, view) of the attacks that count together, by the values of `SETTING`."""
    cells = load_cells(folder)
    cells = cells[~cells["attack"].isin(NULLS) & ~cells["seed_known"] & (cells["status"] != "unsupported")]
    found: dict[tuple[Any, ...], list[tuple[str, str]]] = {}
    for *names, attack, view in (
        cells[[*SETTING, "attack", "view"]].drop_duplicates().itertuples(index=False, name=None)
    ):
        found.setdefault(tuple(names), []).append((attack, view))
    return found


def _worst(by_row: Mapping[Any, pd.DataFrame], attacks: Sequence[tuple[str, str]]) -> pd.Series[float]:
    """Return the share of held-out draws that are right or refused under the attack chosen for each image."""
    if any(key not in by_row for key in attacks):
        return pd.Series(dtype=float)
    parts = [by_row[key] for key in attacks]
    index = parts[0].index
    for part in parts[1:]:
        index = index.intersection(part.index)
    kept, chosen, margin = (
        np.stack([part.loc[index, name].to_numpy(float) for part in parts])
        for name in ("kept", "kept_sel", "margin_sel")
    )
    chosen = np.where(np.isnan(chosen), kept, chosen)  # the one verdict of a deterministic defense
    return pd.Series(worst_case(chosen, kept, 1, 1, margin=margin).withstood, index=index)


def _images(folder: Path) -> pd.DataFrame:
    """Return a row per guarded defense, attack and image: shares of its held-out draws, and its mean score.

    `kept_sel` and `margin_sel` are of its selection draws: the share that is right or refused, and the mean margin.
    """
    draws, records = load_draws(folder), load_results(folder)
    if "score" not in draws or draws["score"].isna().all():
        text = f"{folder} holds no scores: none of its defenses has a detector beside it"
        raise UserError(f'{text}; give one, as params = {{ detector = "score-norm" }}, and run the board')
    draws = draws[draws["score"].notna()]
    label = records[["cell", "image", "label"]]
    columns = ["cell", "image", "held_out", "pred", "margin", "rejected", "score"]
    labelled = draws[columns].merge(label, on=["cell", "image"])
    right = labelled["pred"] == labelled["label"]
    labelled = labelled.assign(
        right=(right & ~labelled["rejected"]).astype(float),
        wrong=(~right).astype(float),
        refused=labelled["rejected"].astype(float),
        accepted=right.astype(float),
        kept=(right | labelled["rejected"]).astype(float),
    )
    held_out = labelled["held_out"].astype(bool)
    means = labelled[held_out].groupby(["cell", "image"], sort=False)[list(_IMAGE)].mean()
    chosen = labelled[~held_out].groupby(["cell", "image"], sort=False)[["kept", "margin"]].mean()
    means = means.join(chosen.add_suffix("_sel")).reset_index()
    names = records[["cell", "image", *SETTING, "attack", "view"]]
    return names.merge(means, on=["cell", "image"])


def _row(clean: pd.DataFrame, attacked: pd.DataFrame) -> dict[str, object]:
    """Return the metrics under one attack."""
    both = attacked.join(clean[["accepted"]].rename(columns={"accepted": "before"}), how="inner")
    fooled = both[(both["before"] > 0.5) & (both["wrong"] > 0.5)]
    scores, adversarial = clean["score"].to_numpy(), fooled["score"].to_numpy()
    which = clean.index.get_indexer(fooled.index)
    low, high = auroc_interval(scores, adversarial, which)
    metrics = {"n_fooled": len(fooled), "auroc": auroc(scores, adversarial), "auroc_low": low, "auroc_high": high}
    for rate in RATES:
        metrics |= _with_interval(f"tpr_at_{100 * rate:.0f}", detected(scores, adversarial, rate))
    return _shares(clean, attacked["kept"]) | metrics


def _shares(clean: pd.DataFrame, right_or_refused: pd.Series[float]) -> dict[str, Any]:
    return {
        "n_images": len(right_or_refused),
        **_with_interval("right_accepted", clean["right"].to_numpy()),
        **_with_interval("clean_refused", clean["refused"].to_numpy()),
        **_with_interval("right_or_refused", right_or_refused.to_numpy(np.float64)),
    }


def _with_interval(name: str, values: npt.NDArray[np.floating[Any]]) -> dict[str, float]:
    """Return the mean of shares in [0, 1] and its Wilson interval, by column name."""
    if not len(values):
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), float("nan"))
    low, high = wilson(float(values.sum()), len(values))
    return {name: float(values.mean()), f"{name}_low": float(low), f"{name}_high": float(high)}
