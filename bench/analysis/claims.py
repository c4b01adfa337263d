"""Judge published claims by the measured worst case, with the sampling error of both sides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import pandas as pd

from bench.analysis.caveats import fingerprints_of
from bench.analysis.claim_files import Claim, interval_of, read_claims
from bench.analysis.columns import with_columns
from bench.analysis.reproduction import NO_POINTS, Points, points_by_defense, points_on
from bench.analysis.results import Results, read_results
from bench.analysis.rows import SETTING
from bench.analysis.summary import WORST, summary
from bench.analysis.weights_used import WeightsUsed, name_and_weights
from bench.store.kinds import Paths, folder_named, paths_of
from bench.store.manifest import Manifest, read_manifest

REFUTED, CONSISTENT, NOT_REACHED, NOT_COMPARABLE = "refuted", "consistent", "not reached", "not comparable"
OTHER_NETWORK = "another network"
POINTS_LEFT = ("points_left", "points_left_low", "points_left_high")
COLUMNS = (
    *("results", "defense", "paper", "year", "kind", "dataset", "threat", "network", "attack", "aggregation"),
    *("claimed_clean", "claimed_robust", "claimed_low", "claimed_high", "claimed_n"),
    *("measured_clean", "measured_robust", "measured_low", "measured_high", "measured_n"),
    *("verdict", "reason", "note", *POINTS_LEFT, "evidence", "source", "url"),
)
_TOLD = (*COLUMNS[2:10], *COLUMNS[-3:])


@dataclass(frozen=True)
class Verdict:
    """Verdict on a claim.

    Args:
        word: "refuted", "consistent", "not reached" or "not comparable".
        reason: in words.
        note: "" or what speaks against taking both sides for the same model.
    """

    word: str
    reason: str
    note: str = ""


def judge_claim(claim: Claim, row: Mapping[str, object]) -> Verdict:
    """Return the verdict of a measured row on a claim.

    The claim is an accuracy on n images of its own, so it has a Wilson interval (95%), as the measured one has:
    "refuted": the claim's lower end lies above the measured upper end; "not reached": its upper end lies below the
    measured lower end (the attacks of the row are weaker than the claim's); else "consistent". "not comparable": data
    set, norm, eps or weights differ, or one side has no number that the other could be held against.

    Args:
        claim: the claim.
        row: a worst-case row of `measured_rows`: the columns of `bench.summary`, and "weights".
    """
    if problems := list(_differences(claim, row)) or list(_missing(claim, row)):
        return Verdict(NOT_COMPARABLE, "; ".join(problems))
    return compare_shares(claim, row)


def compare_shares(claim: Claim, row: Mapping[str, Any]) -> Verdict:
    """Return the verdict on a claim with a robust accuracy and n, taken for one of the row's own model.

    Args:
        claim: the claim.
        row: with robust_low, robust_high, clean_mean, clean_low and clean_high, each in [0, 1].
    """
    low, high = interval_of(claim.robust, claim.n)
    both = f"claimed {_ends(low, high)}, measured {_ends(row['robust_low'], row['robust_high'])}"
    word = REFUTED if low > row["robust_high"] else NOT_REACHED if high < row["robust_low"] else CONSISTENT
    return Verdict(word, both, _another_model(claim, row))


def _ends(low: float, high: float) -> str:
    return f"[{100 * low:.2f}, {100 * high:.2f}]%"


def _differences(claim: Claim, row: Mapping[str, Any]) -> Iterator[str]:
    """Yield what differs between a claim and a row."""
    if claim.dataset != row["dataset"]:
        yield f"another data set ({claim.dataset})"
    if not claim.threat:
        yield "the claim has no ball of a norm"
    elif claim.norm != row["norm"]:
        yield f"another norm ({claim.threat})"
    elif claim.eps != Fraction(row["eps"]):
        yield f"another eps ({claim.eps})"
    if row["targets"] != "none":
        yield "the attacks have targets"
    used: WeightsUsed = row["weights"]
    if not used.are(claim.weights):
        if used.own or (used.networks and claim.weights):
            yield OTHER_NETWORK
        else:
            yield "the claim's weights are unknown" if used.networks else "the measured weights have no known name"


def _missing(claim: Claim, row: Mapping[str, object]) -> Iterator[str]:
    """Yield the numbers that one side lacks."""
    if claim.robust is None:
        yield "the claim has no robust accuracy"
    elif claim.n is None:
        yield "the claim does not tell its number of images"
    if claim.aggregation == "certificate":
        yield "the claim is a certificate"
    elif claim.aggregation != "mean":
        yield f"the claim counts the {claim.aggregation} of an image's draws"
    if row["status"] != "ok":
        yield f"the worst case is incomplete ({row['status']})"


def _another_model(claim: Claim, row: Mapping[str, Any]) -> str:
    """Return a note if the clean accuracies differ by more than sampling error."""
    low, high = interval_of(claim.clean, claim.n)
    if low <= row["clean_high"] and high >= row["clean_low"]:
        return ""
    if claim.clean is None:
        return ""
    return f"another model: clean accuracy {100 * claim.clean:.2f}% claimed, {100 * row['clean_mean']:.2f}% measured"


def measured_rows(results: str | Path) -> pd.DataFrame:
    """Return the rows of `bench.summary` with three more columns, "name", "weights" and "protocols".

    Args:
        results: a results folder.

    Returns:
        "name" is the registered name of the defense, "" for a composition with a detector; "weights" a `WeightsUsed`,
        empty where the row is a mean over several trainings; "protocols" those of `points_of`.

    Raises:
        UserError: no results there, or a damaged file.
    """
    read = read_results(folder_named(results))
    return with_facts(summary(read), read, read_manifest(folder_named(results)))


def with_facts(frame: pd.DataFrame, results: Results, manifest: Manifest) -> pd.DataFrame:
    """Return a summary with the columns "name", "weights" and "protocols", see `measured_rows`.

    Args:
        frame: the summary.
        results: of which it is.
        manifest: of its results folder.
    """
    facts = {
        (label, dataset): name_and_weights(fingerprints_of(manifest, label).values(), dataset)
        for label, dataset in frame[["defense", "dataset"]].drop_duplicates().itertuples(index=False)
    }
    at = list(zip(frame["defense"], frame["dataset"], strict=True))
    weights = pd.Series([facts[key][1] for key in at], index=frame.index, dtype=object)
    left = points_by_defense(results)
    where = frame[["defense", *SETTING]].astype(str).itertuples(index=False, name=None)
    protocols = pd.Series([left.get(key, {}) for key in where], index=frame.index, dtype=object)
    return frame.assign(name=[facts[key][0] for key in at], weights=weights, protocols=protocols)


@with_columns
def claims_table(results: Paths, claims: Iterable[Claim] | None = None) -> pd.DataFrame:
    """Return the claims on the defenses of some results folders, each with its verdict.

    Args:
        results: a results folder, or several.
        claims: the claims; None: those that come with purebench.

    Returns:
        A row per worst case and claim on its defense, in the order of tables. `points_left`: how many points (of 100)
        the preset of the claim's publication leaves above the full protocol on the same defense, with its interval: the
        `weakness` of `bench.reproduction`; NaN where the board did not run that preset.
        Columns: those of `purebench columns claims_table`.

    Raises:
        UserError: no results there, or a damaged file.
    """
    folders = paths_of(results)
    claims = read_claims() if claims is None else list(claims)
    frames = [claims_on(str(folder), measured_rows(folder), claims) for folder in folders]
    return pd.concat(frames, ignore_index=True) if frames else _frame([])


def claims_on(results: str, measured: pd.DataFrame, claims: Sequence[Claim]) -> pd.DataFrame:
    """Return the rows of `claims_table` for one results folder.

    Args:
        results: the folder.
        measured: its rows, see `measured_rows`.
        claims: the claims.
    """
    return _frame(list(_judged(results, measured, claims)))


def _frame(rows: list[dict[str, object]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"year": "Int64", "claimed_n": "Int64"})


def _judged(results: str, measured: pd.DataFrame, claims: Sequence[Claim]) -> Iterator[dict[str, object]]:
    for _, rows in measured.groupby([*SETTING, "defense"], sort=False):
        worst: list[dict[Any, Any]] = rows[rows["attack"] == WORST].to_dict("records")
        for row in worst:
            for claim in claims:
                if _is_about(claim, row):
                    left = points_on(claim, row["name"], row["protocols"], claims)
                    yield claim_row(results, claim, row, judge_claim(claim, row), left)


def foremost(claims: Iterable[Claim], row: Mapping[str, Any]) -> tuple[Claim, Verdict] | None:
    """Return the claim that a leaderboard shows beside a measured row, with its verdict; None without any.

    It is one of the defense's authors, with a robust accuracy: one that can be compared before others, a refuted one
    first; then one on the same data set, at the same threat, and seen in a first source.

    Args:
        claims: the claims.
        row: see `judge_claim`.
    """
    words = (REFUTED, NOT_REACHED, CONSISTENT, NOT_COMPARABLE)

    def place(judged: tuple[Claim, Verdict]) -> tuple[object, ...]:
        claim, verdict = judged
        other_threat = not claim.threat or claim.norm != row["norm"] or claim.eps != Fraction(row["eps"])
        other = (claim.dataset != row["dataset"], other_threat)
        return words.index(verdict.word), *other, claim.aggregation != "mean", claim.evidence == "secondary"

    claimed = [c for c in claims if c.kind == "claim" and c.robust is not None and _is_about(c, row)]
    return min(((claim, judge_claim(claim, row)) for claim in claimed), key=place, default=None)


def _is_about(claim: Claim, row: Mapping[str, Any]) -> bool:
    """Return True if a claim is on the defense of a row: by its name or label, or as a published network alone."""
    used: WeightsUsed = row["weights"]
    return claim.defense in (row["defense"], row["name"]) or (len(used.networks) == 1 and used.are(claim.weights))


def claim_row(
    results: str, claim: Claim, row: Mapping[str, object], verdict: Verdict, left: Points = NO_POINTS
) -> dict[str, object]:
    """Return a row of `claims_table`.

    Args:
        results: where the measured numbers are.
        claim: the claim.
        row: the measured row.
        verdict: on the claim.
        left: points that the claim's protocol leaves, with the ends of their interval, see `claims_table`.
    """
    low, high = interval_of(claim.robust, claim.n)
    claimed = {f"claimed_{name}": getattr(claim, name) for name in ("clean", "robust", "n")}
    measured = {"n": row["n_images"], "clean": row["clean_mean"], "robust": row["robust_mean"]}
    measured |= {"low": row["robust_low"], "high": row["robust_high"]}
    values = {name: getattr(claim, name) for name in _TOLD} | claimed | {"claimed_low": low, "claimed_high": high}
    values |= {f"measured_{name}": value for name, value in measured.items()}
    values |= {"verdict": verdict.word, "reason": verdict.reason, "note": verdict.note}
    values |= dict(zip(POINTS_LEFT, left, strict=True))
    return {"results": results, "defense": row["defense"], **values}
