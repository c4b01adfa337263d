"""The numbers that pictures show, as tables for those who cannot see them."""

from __future__ import annotations

import pandas as pd

from bench.plots.checks import check_rows
from bench.plots.curves import EFFORT, effort_lines, points_of, radius_lines
from bench.plots.matrices import breakers

_WORST = ["defense", "worst_mean", "worst_low", "worst_high"]
_SHOWN = {
    "ranks": ["rank_low", "rank_high", *_WORST, "clean_mean"],
    "clean-robust": [*_WORST, "clean_mean", "clean_low", "clean_high"],
    "cost": [*_WORST, "evaluations_per_image"],
    "claims": ["defense", "claimed_robust", "measured_robust", "measured_low", "measured_high", "verdict"],
    "attacks": ["attack", "view", "robust_mean", "robust_low", "robust_high"],
    "margins": ["from", "to", "clean", "worst"],
    "audit": ["defense", "check", "status"],
    "corruptions": ["defense", "corruption", "severity", "accuracy", "low", "high"],
    "certified": ["sigma", "radius", "certified", "low", "high"],
}


def of_draws(shares: pd.DataFrame, majorities: pd.DataFrame) -> pd.DataFrame:
    """Return the numbers of the picture *draws*, given its curves."""
    curves = {"all": shares, "majority": majorities}
    frame = pd.concat([of.assign(right=name) for name, of in curves.items()], ignore_index=True)
    return frame[["attack", "right", "m", "share", "low", "high"]]


def numbers_of(name: str, data: pd.DataFrame) -> pd.DataFrame:
    """Return the numbers that a picture shows."""
    if name == "matrix":
        by = data.groupby("defense", sort=False)
        numbers = by.agg(images=("image", "nunique"), share=("accuracy", "mean")).reset_index()
        return numbers.assign(broken_by=numbers["defense"].map(_breaking(data)))
    if name == "checks":
        return check_rows(data).drop(columns=["at_least"])
    if name == "radius":
        return points_of("radius", radius_lines(data))
    if name == "convergence":
        efforts = dict(enumerate(EFFORT))
        return points_of("effort", effort_lines(data)).replace({"effort": efforts})
    return data[_SHOWN.get(name, [])]


def _breaking(worst: pd.DataFrame) -> dict[str, str]:
    """Return for each defense the attacks that break images, with how many, the most first."""
    frame = breakers(worst)
    counts = frame[frame["by"] != ""].groupby(["defense", "by"], sort=False)["image"].nunique()
    counts = counts.sort_values(ascending=False, kind="stable")
    texts: dict[str, list[str]] = {str(label): [] for label in frame["defense"].unique()}
    for label, by, count in counts.reset_index().itertuples(index=False):
        texts[str(label)].append(f"{by}: {count}")
    return {label: "; ".join(found) or "none" for label, found in texts.items()}
