"""The lines below the tables: what the numbers mean, and what has to be known of attacks and cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

_OVERALL = "mean: right held-out draws of the deployed defense, as a share per image, averaged over the images"
_WORST = (
    "worst case: per image the worst of the clean image and all attacks, chosen on selection draws and counted on "
    "held-out draws; uniform noise is a yardstick and no candidate"
)
_TARGETED = "targeted: robust = draws that do not give the target"
_INTERVAL = "[ ]: Wilson 95% interval over images (n = images, not images times draws)"
_SEEDS = (
    "±: sample standard deviation over the seeds of the training, each trained model a defense of its own; means and "
    "intervals are of the images' means over seeds"
)
_INCOMPLETE = "*: incomplete, so without a rank (ranks are among complete rows); the full table says what is missing"


def has_seeds(frame: pd.DataFrame) -> bool:
    """Whether a defense of a summary has several training seeds."""
    return bool((frame["n_seeds"] > 1).any())


def _shared(frame: pd.DataFrame) -> list[str]:
    notes = [_OVERALL, _WORST, _INTERVAL]
    notes += [_SEEDS] if has_seeds(frame) else []
    return notes + ([_TARGETED] if (frame["targets"] != "none").any() else [])


def of_comparison(frame: pd.DataFrame, *, starred: bool) -> tuple[str, ...]:
    """What the numbers of the comparison mean.

    Args:
        frame: what `summary` gave.
        starred: whether a number has a star.
    """
    return (*_shared(frame), *([_INCOMPLETE] if starred else []))


def of_all_rows(frame: pd.DataFrame) -> tuple[str, ...]:
    """What the numbers of the full table mean."""
    notes = _shared(frame)
    if any(frame[name].notna().any() for name in frame if str(name).startswith("rob_m")):
        notes.append("Rob(M): all of M draws right, C(right, M) / C(draws, M), averaged over images")
    notes.append("majority vote, mean logit: of all held-out draws of an image; a tie is wrong")
    if (frame["targets"] != "none").any():
        notes.append("attack success under a targeted threat: draws that give the target, over originally right ones")
    notes.append(
        "median size: of the perturbation, in the norm of the threat, over originally right images; ∞ = failed"
    )
    notes.append("evaluations: one image through a network forward = 1, backward = 2; of the attack, not the verdict")
    return tuple(notes)


def warnings(cells: pd.DataFrame) -> tuple[str, ...]:
    """What a reader has to know of the attacks that ran (short budgets) and of single cells (short of memory)."""
    ran = cells[cells["status"] == "ok"]
    pairs = list(zip(ran["attack"], ran["warnings"], strict=True)) if "warnings" in cells else []
    if "notes" in cells:
        noted = cells[cells["notes"].notna()]
        pairs += zip(noted["defense"] + ", " + noted["attack"], noted["notes"], strict=True)
    return tuple(dict.fromkeys(f"{name}: {text}" for name, texts in pairs for text in texts))
