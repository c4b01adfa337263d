"""Numbers of an attack on a row as texts, for the pages of rows and of attacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.report.format import number
from bench.report.row_text import NAMES
from bench.site.model import SiteRow
from bench.site.text import amount, interval, percent
from bench.spec.view_words import status_words, view_words

ONE_DRAW = "one draw"  # in place of Rob(M) of a deterministic defense


def attack_texts(found: Mapping[str, Any], row: SiteRow) -> dict[str, Any]:
    """Return the numbers of an attack on a row as texts.

    Args:
        found: its row of `bench.summary`.
        row: the row.
    """
    n, share = int(found["n_images"]), found["robust_mean"]
    attacked = found["attack"] not in NAMES
    accuracy = (
        "none" if share is None else f"{percent(share, n)} {interval(found['robust_low'], found['robust_high'], n)}"
    )
    size, random = found["median_perturbation"], bool(row.values["stochastic"])
    status = "" if found["status"] == "ok" else status_words(str(found["status"]))
    strongest = (found["attack"], found["view"]) == (row.values["worst_attack"], row.values["worst_view"])
    known = "the attacker knows the draw; no candidate for the worst case" if found["seed_known"] else ""
    return {
        "name": NAMES.get(found["attack"], found["attack"]),
        "view": view_words(found["view"]),
        "label": found["view"],
        "share": share,
        "low": found["robust_low"],
        "high": found["robust_high"],
        "accuracy": accuracy,
        "rob": found.get("rob_m5"),
        "rob_text": _rob(found.get("rob_m5"), n, random=random),
        "rob15": found.get("rob_m15"),
        "rob15_text": _rob(found.get("rob_m15"), n, random=random),
        "draws": str(found["draws"]),
        "success": _text(found["asr"], lambda value: percent(value, n), attacked),
        "size": _text(size, number, attacked),
        "evaluations": _text(found["evaluations_per_image"], amount, attacked),
        "seconds": _text(found["seconds_per_image"], amount, attacked),
        "images": f"{n} of {found['planned']}" if n != found["planned"] else str(n),
        "remarks": "; ".join(
            filter(None, ("breaks most images" if strongest else "", known, status, found["warnings"]))
        ),
        "strong": strongest,
    }


def _rob(rob: float | None, n: int, *, random: bool) -> str:
    """Return Rob(M) in percent, or why there is none."""
    if not random:
        return ONE_DRAW
    return "none" if rob is None else percent(rob, n)


def _text(value: float | None, show: Any, attacked: bool) -> str:
    """Return a number, or why there is none."""
    if not attacked:
        return ""
    return "none" if value is None else str(show(value))
