"""The worst case of every image, as rows that can be compared image by image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.analysis.results import Results, read_results
from bench.analysis.rows import SETTING, TRAINING_SEED, Group, choose, grouped

if TYPE_CHECKING:
    import pandas as pd

_KEYS = ("defense", *SETTING)


def worst_per_image(source: str | Path | Results) -> pd.DataFrame:
    """Per defense and image the worst of the clean image and all attacks, as the "worst case" of `summary` counts it.

    The worst is chosen on selection draws and counted on held-out ones; of equals the one with the smaller margin on
    these (`bench.stats.worst_case.select_worst`). Choosing and counting on the same draws would make a stochastic
    defense look weaker than it is.

    Args:
        source: a results folder, or what `read_results` gave.

    Returns:
        A row per defense, training seed, setting and image that every planned attack of that defense has judged
        (attacks that no defense of the setting can be attacked with excepted): the keys, index, label, attack, view,
        and as shares in [0, 1] `clean` (right draws of the clean image), `accuracy` (right held-out draws of the worst
        one) and `robust` (held-out draws that withstand it: the same, or when targeted those that do not give the
        target). Every training seed is a defense of its own: its rows are no further images.

    Raises:
        UserError: no results there, a damaged file, or an image with several verdicts in one row.
    """
    import pandas as pd

    results = source if isinstance(source, Results) else read_results(source)
    columns = [*_KEYS[:1], TRAINING_SEED, *_KEYS[1:], "index", "label", "attack", "view", "clean", "accuracy", "robust"]
    groups = [group for seeds in grouped(results) for group in seeds]
    frames = [pd.DataFrame(_of_group(group), columns=columns) for group in groups if group.attacks]
    whole = [frame for frame in frames if len(frame)]
    return pd.concat(whole, ignore_index=True) if whole else pd.DataFrame(columns=columns)


def _of_group(group: Group) -> dict[str, Any]:
    """The columns of one defense in one setting; no rows where an attack or the selection draws are lacking."""
    choice = choose(group.needed)
    if choice is None:
        return {}
    judged, at = choice
    return {
        TRAINING_SEED: group.training_seed,
        **{name: [group.attacks[0].names[name]] * len(judged) for name in _KEYS},
        "index": judged.index,
        "label": judged.label.astype(int),
        "attack": [group.needed[i].attack for i in at],
        "view": [group.needed[i].names["view"] for i in at],
        "clean": judged.clean,
        "accuracy": judged.correct / judged.draws,
        "robust": judged.withstood / judged.draws,
    }
