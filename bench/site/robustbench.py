"""RobustBench's own numbers beside each other: entries of its `model_info`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bench.analysis.claims import COLUMNS
from bench.report.format import rank_range
from bench.report.model_info_claims import AUTOATTACK
from bench.site.claim_texts import claim_texts, order_of
from bench.site.columns import verdict_words
from bench.site.model import Site
from bench.site.records import records
from bench.site.text import interval, missing, percent
from bench.stats.proportions import wilson

Entry = Mapping[str, Any]
_RANKS = ("rank_low", "rank_high")


def reported_frame(entries: Sequence[Entry]) -> dict[str, pd.DataFrame]:
    """Return rows on entries of RobustBench's `model_info` as the frame "reported" of a site; none without entries.

    Two entries of one data set and threat are told apart where the intervals of their best known numbers do not
    overlap: no images are known, so nothing is paired.

    Args:
        entries: rows of `bench.report.model_info_claims.reported_row`.
    """
    if not entries:
        return {}
    frame = pd.DataFrame(entries, columns=[*COLUMNS, AUTOATTACK])
    ranks = pd.concat([_ranks(group) for _, group in frame.groupby(["dataset", "threat"], sort=False)])
    return {"reported": frame.join(ranks)}


def _ranks(entries: pd.DataFrame) -> pd.DataFrame:
    """Return the range of ranks of entries of one data set and threat; none where no robust accuracy is known."""
    known = entries["measured_robust"].notna()
    low, high = (entries.loc[known, f"measured_{end}"].to_numpy() for end in ("low", "high"))
    better, worse = low[None, :] > high[:, None], high[None, :] < low[:, None]  # another entry (column) than mine (row)
    ranks = pd.DataFrame(index=entries.index, columns=list(_RANKS), dtype="Int64")
    ranks.loc[known, "rank_low"] = 1 + better.sum(1)
    ranks.loc[known, "rank_high"] = int(known.sum()) - worse.sum(1)
    return ranks


def entries_of(site: Site) -> list[dict[str, Any]]:
    """Return what is shown of the entries of `model_info`, those whose reported number cannot hold first."""
    if "reported" not in site.frames:
        return []
    entries = sorted(records(site.frames["reported"]), key=order_of)
    return [_entry(entry) for entry in entries]


def _entry(entry: Entry) -> dict[str, Any]:
    """Return what is shown of an entry."""
    words, kind = verdict_words(str(entry["verdict"]))
    n = int(entry["claimed_n"])
    ranked = entry["rank_low"] is not None
    return {
        **entry,
        **claim_texts(entry),
        "words": words,
        "kind": kind,
        "rank": rank_range(*(int(entry[name]) for name in _RANKS)) if ranked else "none",
        "autoattack": _share(entry[AUTOATTACK], n),
        "clean": _share(entry["measured_clean"], n),
        "best": _share(entry["measured_robust"], n),
    }


def _share(share: float | None, n: int) -> str:
    """Return a published share in percent with the interval that its number of images gives."""
    if share is None or missing(share):
        return "not known"
    low, high = wilson(share * n, n)
    return f"{percent(share, n)} {interval(float(low), float(high), n)}"
