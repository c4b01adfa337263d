"""The worst case per image, as a frame for comparisons image by image."""

from __future__ import annotations

import pandas as pd

from bench.analysis.columns import with_columns
from bench.analysis.frames import FolderOrFrame, results_of
from bench.analysis.public_names import public
from bench.analysis.rows import SETTING, TRAINING_SEED, Group, choose, grouped

_KEYS = ("defense", *SETTING)


@with_columns
def worst_per_image(source: FolderOrFrame) -> pd.DataFrame:
    """Return the worst of the clean image and all attacks per defense and image, as counted by `summary`.

    The worst is chosen on selection draws and counted on held-out ones; ties go to the smaller margin on selection
    draws (`bench.stats.worst_case.select_worst`). Choosing and counting on the same draws would underestimate a
    stochastic defense.

    Args:
        source: a results folder, a frame of `load_results` or `benchmark`, or the result of `read_results`.

    Returns:
        A row per defense, training seed, setting and image with verdicts of all planned attacks on that defense
        (except attacks unsupported on all defenses of the setting). `robust` counts the held-out draws that withstand
        the worst attack: the right ones, or if targeted those that do not give the target. Every training seed is a
        defense of its own: its rows are no further images. Columns: those of `purebench columns worst_per_image`.

    Raises:
        UserError: no results there, a damaged file, or an image with several verdicts in one row.
    """
    results = results_of(source)
    columns = [*_KEYS[:1], TRAINING_SEED, *_KEYS[1:], "index", "label", "attack", "view", "clean", "accuracy", "robust"]
    groups = (group for seeds in grouped(results) for group in seeds)  # one at a time: all of them are large
    frames = [pd.DataFrame(_of_group(group), columns=columns) for group in groups if group.attacks]
    filled = [frame for frame in frames if len(frame)]
    return public(pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=columns))


def _of_group(group: Group) -> dict[str, object]:
    """Return the columns of one defense in one setting; none if an attack or the selection draws are missing."""
    choice = choose(group.needed)
    if choice is None:
        return {}
    scores, row = choice
    return {
        TRAINING_SEED: group.training_seed,
        **{name: [group.attacks[0].names[name]] * len(scores) for name in _KEYS},
        "index": scores.index,
        "label": scores.label.astype(int),
        "attack": [group.needed[i].attack for i in row],
        "view": [group.needed[i].names["view"] for i in row],
        "clean": scores.clean,
        "accuracy": scores.correct / scores.draws,
        "robust": scores.withstood / scores.draws,
    }
