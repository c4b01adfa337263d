"""The page of claims: published accuracies beside the measured ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from bench.analysis.claims import COLUMNS, NOT_COMPARABLE, POINTS_LEFT
from bench.figures.picture import Picture
from bench.figures.pictures import of_claims
from bench.report.format import points
from bench.site.columns import verdict_words
from bench.site.commits import of_site
from bench.site.model import Site, SiteBoard, SiteRow
from bench.site.plots import Plots
from bench.site.records import records
from bench.site.text import interval, missing, page, percent

_ORDER = ("refuted", "not reached", "consistent", "not comparable")
_KINDS = {"claim": "the authors", "re-evaluation": "a re-evaluation"}
Claim = Mapping[str, Any]


def claims_page(site: Site, plots: Plots) -> str:
    """Return the page of all claims on defenses of the boards; its picture is added to `plots`."""
    found = [(board, row, claim) for board in site.boards for row in board.rows for claim in row.claims]
    lines = [_line(claim, board, row) for board, row, claim in sorted(found, key=lambda known: _order(known[2]))]
    claims = [claim for _, _, claim in found]
    verdicts = [word for word in _ORDER if any(claim["verdict"] == word for claim in claims)]
    counts = {word: sum(claim["verdict"] == word for claim in claims) for word in verdicts}
    return page(
        "claims.html.j2",
        title="Claims",
        depth=0,
        site=site.title,
        made=of_site(site),
        lines=lines,
        counts=counts,
        plots=plots.shown(_pictures(site.frames["claims"]), "all", "") if claims else [],
        verdicts=[(word.replace(" ", "-"), word) for word in verdicts],
        kinds=[(kind, text) for kind, text in _KINDS.items() if any(claim["kind"] == kind for claim in claims)],
        boards=[board for board in site.boards if any(line["board"] is board for line in lines)],
        entries=_entries(site),
    )


def _pictures(claimed: pd.DataFrame) -> list[Picture]:
    """Return the picture of the claims that can be compared, if any; its text says how many others are left out."""
    compared = claimed["verdict"] != NOT_COMPARABLE
    out = int((~compared).sum())
    more = f" Left out: {out} that cannot be compared." if out else ""
    return [replace(picture, alt=picture.alt + more) for picture in of_claims(claimed[compared])]


def reported_frame(entries: Sequence[Claim]) -> dict[str, pd.DataFrame]:
    """Return rows on entries of RobustBench's `model_info` as the frame "reported" of a site; none without entries."""
    return {"reported": pd.DataFrame(entries, columns=list(COLUMNS))} if entries else {}


def _entries(site: Site) -> list[dict[str, Any]]:
    """Return what is shown of the entries of `model_info`, those whose reported number cannot hold first."""
    if "reported" not in site.frames:
        return []
    entries = [entry | claim_texts(entry) for entry in records(site.frames["reported"])]
    shown = ((entry, *verdict_words(str(entry["verdict"]))) for entry in sorted(entries, key=_order))
    return [entry | {"words": words, "kind": kind} for entry, words, kind in shown]


def _order(claim: Claim) -> tuple[int, bool]:
    """Return what orders claims: those that can be compared first, those of the authors before others."""
    word = str(claim["verdict"])
    return _ORDER.index(word) if word in _ORDER else len(_ORDER), claim["kind"] != "claim"


def _line(claim: Claim, board: SiteBoard, row: SiteRow) -> dict[str, Any]:
    """Return what is shown of a claim."""
    words, kind = verdict_words(str(claim["verdict"]))
    return {
        **claim_texts(claim),
        **{name: claim[name] for name in ("network", "attack", "evidence", "source", "claimed_robust")},
        "claim": claim,
        "board": board,
        "row": row,
        "words": words,
        "kind": kind,
        "verdict": str(claim["verdict"]).replace(" ", "-"),
    }


def claim_texts(claim: Claim) -> dict[str, Any]:
    """Return a row of `bench.claims_table` as texts."""
    n = int(claim["measured_n"] or 0)
    measured = claim["measured_robust"]
    return {
        "url": claim["url"],
        "by": ", ".join(str(told) for told in (claim["paper"], claim["year"]) if told),
        "who": str(claim["kind"]),
        "on": f"{claim['dataset']} {claim['threat']}".strip(),
        "clean": _told(claim["claimed_clean"]),
        "robust": _told(claim["claimed_robust"]),
        "n": "not told" if claim["claimed_n"] is None else f"{claim['claimed_n']:,}",
        "measured_clean": "not run" if claim["measured_clean"] is None else percent(claim["measured_clean"], n),
        "measured": "not run"
        if measured is None
        else f"{percent(measured, n)} {interval(claim['measured_low'], claim['measured_high'], n)}",
        "why": "; ".join(filter(None, (claim["reason"], claim["note"]))),
        "left": points_left(claim),
    }


def points_left(claim: Claim) -> str:
    """Return the points that the protocol of a claim leaves above the full one, with their interval."""
    value, low, high = (math.nan if missing(claim[name]) else claim[name] for name in POINTS_LEFT)
    return "protocol not run" if math.isnan(value) else points(value, low, high)


def _told(share: float | None) -> str:
    return "not told" if share is None else f"{100 * share:.2f}"
