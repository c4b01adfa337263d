"""Footnotes on numbers that look wrong: clean accuracy like chance, and a worst case above one of its attacks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bench.analysis.records import CLEAN, NULL
from bench.analysis.rows import SETTING
from bench.analysis.summary import WORST
from bench.report.attack_warnings import listed

if TYPE_CHECKING:
    import pandas as pd

_FEWEST = 10  # images for a note on chance


def of_numbers(frame: pd.DataFrame, cells: pd.DataFrame, records: pd.DataFrame) -> tuple[str, ...]:
    """Return footnotes that say why a number is what it is, where a reader would take it for a fault.

    Args:
        frame: a summary.
        cells: its cells, see `load_cells`.
        records: its records, with the column "label".
    """
    return tuple(dict.fromkeys((*_like_chance(frame, records), *_above_an_attack(frame, cells))))


def _like_chance(frame: pd.DataFrame, records: pd.DataFrame) -> Iterator[str]:
    """Yield a note for each defense whose clean accuracy is no better than that of a guess among the labels met."""
    clean = frame[(frame["attack"] == CLEAN) & (frame["n_images"] >= _FEWEST)]
    low = (clean["clean_mean"] <= 0.5).any()  # above it no number of classes, at least two, makes a note
    classes = records["label"].nunique() if low and "label" in records else 0
    for defense, accuracy in zip(clean["defense"], clean["clean_mean"], strict=True):
        if classes > 1 and accuracy <= 1 / classes:
            yield (
                f"{defense}: clean accuracy {100 * accuracy:.1f}% is no better than a guess among {classes} classes; "
                "are the labels and the range of the images those of the model?"
            )


def _above_an_attack(frame: pd.DataFrame, cells: pd.DataFrame) -> Iterator[str]:
    """Yield a note on the worst cases that are above the mean of one of their attacks."""
    above: dict[int, dict[str, None]] = {}  # by selection draws
    for (*_, defense), rows in frame.groupby([*SETTING, "defense"], sort=False):
        worst = rows.loc[(rows["attack"] == WORST) & rows["status"].eq("ok"), "robust_mean"]
        attacks = rows[~rows["attack"].isin((CLEAN, NULL, WORST)) & ~rows["seed_known"] & rows["status"].eq("ok")]
        if len(worst) and len(attacks) and worst.iloc[0] > attacks["robust_mean"].min() + 1e-9:
            draws = int(cells.loc[cells["defense"] == defense, "selection"].max())
            above.setdefault(draws, {})[str(defense)] = None
    for draws, defenses in above.items():
        yield (
            f"the worst case of {listed(list(defenses))} is above that of a single attack: the attack of each image is "
            f"chosen on {draws} selection draws and counted on others; more of them ([verdict] selection) bring it down"
        )
