"""The page of claims: published accuracies beside the measured ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from bench.analysis.claims import NOT_COMPARABLE
from bench.figures.picture import Picture
from bench.figures.pictures import of_claims
from bench.site.claim_texts import VERDICTS, Claim, claim_texts, order_of
from bench.site.columns import verdict_words
from bench.site.commits import of_site
from bench.site.model import Site, SiteBoard, SiteRow
from bench.site.plots import Plots
from bench.site.robustbench import entries_of
from bench.site.text import page

_KINDS = {"claim": "the authors", "re-evaluation": "a re-evaluation"}


def claims_page(site: Site, plots: Plots) -> str:
    """Return the page of all claims on defenses of the boards; its picture is added to `plots`."""
    found = [(board, row, claim) for board in site.boards for row in board.rows for claim in row.claims]
    lines = [_line(claim, board, row) for board, row, claim in sorted(found, key=lambda known: order_of(known[2]))]
    claims = [claim for _, _, claim in found]
    verdicts = [word for word in VERDICTS if any(claim["verdict"] == word for claim in claims)]
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
        entries=entries_of(site),
    )


def _pictures(claimed: pd.DataFrame) -> list[Picture]:
    """Return the picture of the claims that can be compared, if any; its text says how many others are left out."""
    compared = claimed["verdict"] != NOT_COMPARABLE
    out = int((~compared).sum())
    more = f" Left out: {out} that cannot be compared." if out else ""
    return [replace(picture, alt=picture.alt + more) for picture in of_claims(claimed[compared])]


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
