"""The worst case of every image, as rows that can be compared image by image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.results import NULL

if TYPE_CHECKING:
    import pandas as pd

_KEYS = ["defense", "dataset", "split", "indices", "norm", "eps", "targets"]


def worst_per_image(frame: pd.DataFrame) -> pd.DataFrame:
    """Per defense and image the worst of the clean image and all attacks.

    The worst is chosen on selection draws and counted on held-out ones; of equals the first in table order. Choosing
    and counting on the same draws would make a stochastic defense look weaker than it is.

    Args:
        frame: as `load_results` gives it, or some of its rows.

    Returns:
        A row per defense, setting and image that every attack of that defense has judged: the keys, index, label,
        attack, view, `clean` and `accuracy` (share of right held-out draws).
    """
    rows = frame[frame["attack"] != NULL].copy()
    rows["chosen_by"] = rows["correct_sel"] / rows["draws_sel"].where(rows["draws_sel"] > 0)
    judged = rows["accuracy"].notna() & rows["chosen_by"].notna()
    image = [*_KEYS, "index"]
    whole = judged.groupby([rows[k] for k in image], sort=False).transform("all")
    pair = rows["attack"] + "\0" + rows["view"]
    asked = pair.groupby([rows[k] for k in _KEYS], sort=False).transform("nunique")
    answered = pair.groupby([rows[k] for k in image], sort=False).transform("nunique")
    complete = rows[whole & (answered == asked)]
    worst = complete.loc[complete.groupby(image, sort=False)["chosen_by"].idxmin()]
    return worst[[*image, "label", "attack", "view", "clean", "accuracy"]].reset_index(drop=True)
