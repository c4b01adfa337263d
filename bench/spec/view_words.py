"""Views of attackers and statuses of rows in plain words, for pages and reports; frames and CSV keep the labels."""

from __future__ import annotations

import re

from bench.spec.cell import DEPLOYED, GIVEN

_MODES = {  # gradient mode: words, and those with its number
    "exact": ("exact gradients", ""),
    "bpda": ("BPDA gradients", ""),
    "blind": ("blind to the defense", ""),
    "bpda-denoiser": ("BPDA by one denoising step", ""),
    "bpda-autoencoder": ("BPDA by another network", ""),
    "bpda-filters": ("exact gradients, BPDA for filters", ""),
    "surrogate": ("gradients of a shorter purifier", "{} steps"),
    "forward-noise": ("gradients without the steps", ""),
    "joint-score": ("signs of BPDA and of the score", ""),
    "joint-full": ("signs of BPDA and of what purification changes", ""),
    "smooth": ("gradients of smoothed activations", "width {}"),
    "difference": ("gradients by central differences", "displacement {}"),
    DEPLOYED: ("as deployed", ""),
    GIVEN: ("images from a file", ""),
}
_REST = {"log-mean-prob": "log of mean probabilities", "seed known": "its noise known"}
_COPIES = re.compile(r"(\d+)(?:-(\d+))? EOT(?: x (?:(\d+)|S) runs?)?")
_NO_ATTACK = {f"none ({DEPLOYED})": "clean images", f"uniform ({DEPLOYED})": "uniform noise"}


def view_words(view: str) -> str:
    """Return the label of a view in plain words; another text as it is.

    "exact, 8 EOT x 1 run" is "exact gradients, mean of 8 draws"; "bpda, 2-16 EOT x S runs" is "BPDA gradients, mean of
    2 to 16 predictions as deployed", each of which combines the deployed number S of runs.

    Args:
        view: see `bench.spec.view.ViewSpec.label`.
    """
    mode, *rest = view.split(", ")
    name, _, number = mode.partition(":")
    if name not in _MODES:
        return view
    words, of_number = _MODES[name]
    return ", ".join(
        [words, *([of_number.format(number)] if number else []), *(_REST.get(r) or _copies(r) for r in rest)]
    )


def _copies(text: str) -> str:
    """Return what an attacker averages, in words: draws, runs, or predictions of the deployed number of runs."""
    found = _COPIES.fullmatch(text)
    if found is None:
        return text
    low, high, runs = found.groups()
    several = f"mean of {low}" + (f" to {high}" if high else "")
    if text.endswith("S runs"):
        return "as deployed" if (low, high) == ("1", None) else f"{several} predictions as deployed"
    each = f" of {runs} runs each" if runs not in (None, "1") else ""
    if (low, high) == ("1", None):
        return f"mean of {runs} runs" if each else "one draw"
    return f"{several} draws{each}"


def status_words(status: str) -> str:
    """Return the status of a row in plain words, with those of the views that it names.

    "partial: without (all of) square (exact)" is "partial: not complete: square (exact gradients)".

    Args:
        status: the column of `bench.summary` and `bench.leaderboard`.
    """
    text = status.replace("without (all of) ", "not complete: ")
    for label, words in _NO_ATTACK.items():
        text = text.replace(label, words)
    return re.sub(r"\(([^()]+)\)", lambda found: f"({view_words(found[1])})", text)
