"""Export a defense of a results folder as RobustBench's `model_info` JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.analysis.caveats import failures, with_audit
from bench.analysis.passes import passes_of
from bench.analysis.results import CLEAN, NULL, read_results
from bench.analysis.summary import WORST, summary
from bench.report.model_info import KEYS, PERCENTS, ModelInfo
from bench.spec.threat import exact
from bench.store.kinds import folder_named
from bench.store.manifest import read_manifest
from bench.store.reader import read_folder
from defenses.utils.errors import UserError, unknown
from defenses.utils.json_values import Json, JsonView
from defenses.utils.names import is_plugin, portable
from defenses.utils.text import counted
from defenses.zoo.cards import card, list_models

if TYPE_CHECKING:
    import pandas as pd

    from bench.store.parts import CellRecord

_STANDARD = "autoattack:standard"


@dataclass(frozen=True, eq=False)
class ExportedRows:
    """Rows of `bench.summary` for one defense under one threat.

    Args:
        clean: row of the clean images.
        autoattack: row of AutoAttack standard with unchanged parameters, on the defense itself and in float32, if
            complete; None for a stochastic defense.
        worst: row of the worst case, if complete.
        name: name of the defense in the registry.
        dataset: name of the data set.
        norm: norm of the threat.
        eps: radius of the threat.
        stochastic: True if predictions depend on noise.
        passes: counted forward passes of a network per prediction.
        attacks: number of attacks that ran, each view counted.
        not_run: attacks that could not run.
    """

    clean: pd.Series[Any]
    autoattack: pd.Series[Any] | None
    worst: pd.Series[Any] | None
    name: str
    dataset: str
    norm: str
    eps: str
    stochastic: bool
    passes: int
    attacks: int
    not_run: tuple[str, ...]


def rows_of(results: str | Path, defense: str, *, eps: object = None) -> ExportedRows:
    """Return the summary rows of a defense.

    Args:
        results: the results folder.
        defense: label of the defense there.
        eps: radius of the threat; None if there is only one threat.

    Raises:
        UserError: no results, no such defense or threat, a targeted one, or several to choose from.
    """
    folder = folder_named(results)
    read = read_results(folder)
    frame = with_audit(summary(read), failures(folder, read_manifest(folder)))
    if defense not in set(frame["defense"]):
        raise unknown(f"defense in {results}", defense, frame["defense"].unique())
    lines = read_folder(folder, lambda lines, _: lines)
    passes = passes_of(read.cells[read.cells["defense"] == defense], read.records)
    return rows_among(frame, lines, defense, str(results), passes=passes, eps=eps)


def rows_among(
    frame: pd.DataFrame, lines: Iterable[CellRecord], defense: str, results: str, *, passes: float, eps: object = None
) -> ExportedRows:
    """Return the rows of a defense in a summary that is at hand.

    Args:
        frame: rows of `bench.summary`.
        lines: of the cells, see `bench.store.reader.read_folder`.
        defense: label of the defense.
        results: name of the results folder, for faults.
        passes: of a prediction, see `bench.analysis.passes.passes_of`.
        eps: radius of the threat; None if there is only one threat.

    Raises:
        UserError: no such threat, a targeted one, or several to choose from.
    """
    frame = _of_threat(frame[(frame["defense"] == defense) & (frame["targets"] == "none")], defense, eps)
    norm, radius = str(frame["norm"].iloc[0]), str(frame["eps"].iloc[0])
    lines = [x for x in lines if (x["defense"], x["norm"], x["eps"]) == (defense, norm, radius) and "identity" in x]
    plain = {(x["attack"], x["view"]) for x in lines if _is_standard(x["identity"])}
    stochastic = bool(frame["stochastic"].iloc[0])
    attacks = frame[~frame["attack"].isin((CLEAN, NULL, WORST))]
    attacks = attacks[~attacks["seed_known"]]  # no candidates for the worst case
    ran = attacks["status"].to_numpy() == "ok"
    titles = zip(attacks["attack"].tolist(), attacks["view"].tolist(), ran, strict=True)
    pairs = zip(frame["attack"], frame["view"], strict=True)
    clean = _row(frame[frame["attack"] == CLEAN])
    if clean is None:
        raise UserError(f"{results} has no verdict on all clean images of {defense}; finish the run")
    return ExportedRows(
        clean=clean,
        autoattack=None if stochastic else _row(frame[[pair in plain for pair in pairs]]),
        worst=_row(frame[frame["attack"] == WORST]),
        name=_name(str(lines[0]["identity"]["defense"]["name"]), defense) if lines else defense,
        dataset=portable(str(frame["dataset"].iloc[0])),
        norm=norm,
        eps=radius,
        stochastic=stochastic,
        passes=0 if math.isnan(passes) else round(passes),
        attacks=int(ran.sum()),
        not_run=tuple(f"{attack} ({view})" for attack, view, done in titles if not done),
    )


def _is_standard(identity: JsonView) -> bool:
    """Return True for AutoAttack as RobustBench runs it: not on a surrogate, a bare classifier or in less precision."""
    name, params, *_ = identity["attack"]
    other = {"source", "compute"} & identity.keys() or identity["view"][0].partition(":")[0] in ("blind", "surrogate")
    return name == _STANDARD and not params and not other


def _name(name: str, label: str) -> str:
    """Return the name of a registered defense or of a model of RobustBench, or the label of a user's own."""
    return label if is_plugin(name) else name


def _of_threat(frame: pd.DataFrame, defense: str, eps: Any) -> pd.DataFrame:
    threats = [f"{n} {e}" for n, e in frame[["norm", "eps"]].drop_duplicates().itertuples(index=False)]
    if eps is not None:
        frame = frame[frame["eps"] == str(exact(eps))]
        if frame.empty:
            raise UserError(f"the eps differ: {eps} is asked for, {defense} was attacked under {', '.join(threats)}")
    if frame[["norm", "eps"]].drop_duplicates().shape[0] != 1:
        raise UserError(
            f"{defense} was attacked under {', '.join(threats) or 'no untargeted threat'}; name one by its eps"
        )
    return frame


def _row(frame: pd.DataFrame) -> pd.Series[Any] | None:
    """Return the only complete row; None if there is not exactly one."""
    complete = frame[(frame["status"] == "ok") & (frame["coverage"] == 1)]
    return complete.iloc[0] if len(complete) == 1 else None


def export(
    results: str | Path, defense: str, *, eps: object = None, fields: Mapping[str, str | bool | int] | None = None
) -> ModelInfo:
    """Return a defense's entry, from its results and its card.

    Args:
        results: the results folder.
        defense: label of the defense there.
        eps: radius of the threat; None if there is only one threat.
        fields: further keys, as {"architecture": "ResNet-18"}, which replace those of the card; no measured ones.

    Returns:
        The entry; `clean_acc`, `autoattack_acc` (of a deterministic defense attacked by AutoAttack standard) and
        `external` (the worst case over all attacks, if there is no such number or it is lower) are percentages with
        two decimals. RobustBench admits no randomised defense; the footnote of one says so.

    Raises:
        UserError: see `rows_of`; or a key that RobustBench does not have or that is measured.
    """
    measured = {*PERCENTS, "eps", "dataset", "number_forward_passes"} - {"reported"}
    for key in fields or {}:
        if key not in KEYS:
            raise unknown("key of model_info", key, set(KEYS) - measured)
        if key in measured:
            raise UserError(f"{key} is measured; leave it out")
    return entry_of(rows_of(results, defense, eps=eps), defense, str(results), fields)


def entry_of(
    rows: ExportedRows, defense: str, results: str, fields: Mapping[str, str | bool | int] | None = None
) -> ModelInfo:
    """Return the entry of summary rows, see `export`.

    Args:
        rows: of the defense.
        defense: its label, for faults.
        results: name of the results folder, for faults.
        fields: see `export`.

    Raises:
        UserError: neither AutoAttack nor the worst case is complete.
    """
    if rows.autoattack is None and rows.worst is None:
        raise UserError(f"{results} has no complete worst case of {defense}; finish the run: purebench status tells")
    raw: dict[str, object] = {**_card(rows), "number_forward_passes": rows.passes, "dataset": rows.dataset}
    raw |= {"eps": eps_text(Fraction(rows.eps)), "clean_acc": _percent(rows.clean)}
    if rows.autoattack is not None:
        raw["autoattack_acc"] = _percent(rows.autoattack)
    standard = 1.0 if rows.autoattack is None else float(rows.autoattack["robust_mean"])
    if rows.worst is not None and (rows.autoattack is None or float(rows.worst["robust_mean"]) < standard):
        raw["external"] = _percent(rows.worst)
    raw |= {"footnote": _footnote(rows), **(fields or {})}
    return ModelInfo({key: raw[key] for key in KEYS if key in raw})


def _percent(row: pd.Series[Any]) -> str:
    return f"{100 * float(row['robust_mean']):.2f}"


def eps_text(eps: Fraction) -> str:
    """Return a radius as RobustBench prints it: "0.5", "8/255"."""
    rest = eps.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest == 1:
        return str(float(eps)) if eps.denominator > 1 else str(eps)
    return f"{eps * 255}/255" if 255 % eps.denominator == 0 else str(eps)


def _card(rows: ExportedRows) -> Json:
    """Return bibliography and claim of a registered defense; of any other the keys that RobustBench requires."""
    if rows.name not in list_models():
        return {"link": "", "name": rows.name, "authors": "", "additional_data": None, "venue": "", "architecture": ""}
    published = card(rows.name)
    raw = {"link": published.url, "name": published.title, "authors": published.authors, "additional_data": None}
    raw |= {"venue": published.venue, "architecture": ""}
    claims = [claim for claim in published.claims if claim["kind"] == "claim" and claim["threat"] and claim["robust"]]
    for claim in sorted(claims, key=lambda claim: claim["evidence"] == "secondary"):
        norm, _, eps = str(claim["threat"]).partition(" ")
        if (claim["dataset"], norm, exact(eps)) == (rows.dataset, rows.norm, exact(rows.eps)):
            return raw | {"reported": f"{100 * float(claim['robust']):.2f}"}
    return raw


def _footnote(rows: ExportedRows) -> str:
    text = f"Measured by purebench on {int(rows.clean['n_images'])} images under {rows.norm} {rows.eps}."
    if rows.worst is not None:
        text += f" The worst case of {counted(rows.attacks, 'attack')} per image is {_percent(rows.worst)}%"
        text += f"; {', '.join(rows.not_run)} could not run." if rows.not_run else "."
    failed = str(rows.clean.get("audit") or "")
    text += f" It fails purebench's audit ({failed}), so these numbers overstate its robustness." if failed else ""
    if not rows.stochastic:
        return text
    return f"{text} The defense is randomised: numbers are means over {int(rows.clean['draws'])} held-out draws, \
and RobustBench's rules do not admit it."
