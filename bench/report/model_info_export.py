"""From a results folder to RobustBench's `model_info` JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.report.model_info import KEYS, PERCENTS, ModelInfo
from defenses.utils.errors import UserError, unknown
from defenses.utils.text import counted

if TYPE_CHECKING:
    import pandas as pd

_STANDARD = "autoattack:standard"


@dataclass(frozen=True, eq=False)
class ExportedRows:
    """What a results folder says of one defense under one threat: rows of `bench.summary`, None where there is none.

    Args:
        clean: of the clean images.
        autoattack: of AutoAttack standard with nothing changed, against a deterministic defense.
        worst: the worst case, where it is complete.
        name: of the defense in the registry.
        dataset: name.
        norm: of the threat.
        eps: of the threat.
        stochastic: whether predictions depend on noise.
        passes: forward passes of a network per prediction, as counted.
        attacks: how many ran, each under each of its views.
        not_run: those that could not.
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


def rows_of(results: str | Path, defense: str, *, eps: Any = None) -> ExportedRows:
    """The rows of a defense.

    Args:
        results: the folder.
        defense: its label there.
        eps: of the threat; may be None where there is one threat.

    Raises:
        UserError: no results, no such defense, no such threat, a targeted one, or several to choose from.
    """
    from bench.analysis.results import CLEAN, NULL
    from bench.analysis.summary import WORST, summary
    from bench.spec.cell import KNOWN
    from bench.store.parts import stored

    frame = summary(results)
    if defense not in set(frame["defense"]):
        raise unknown(f"defense in {results}", defense, frame["defense"].unique())
    frame = _of_threat(frame[(frame["defense"] == defense) & (frame["targets"] == "none")], defense, eps)
    lines = [line for line, _ in stored(Path(results) / "parts").values()]
    norm, radius = str(frame["norm"].iloc[0]), str(frame["eps"].iloc[0])
    lines = [x for x in lines if (x["defense"], x["norm"], x["eps"]) == (defense, norm, radius) and "identity" in x]
    names = {x["attack"]: (x["identity"]["attack"][0], x["identity"]["attack"][1]) for x in lines}
    plain = [a for a, (name, params) in names.items() if name == _STANDARD and not params]
    stochastic = bool(frame["stochastic"].iloc[0])
    attacks = frame[~frame["attack"].isin((CLEAN, NULL, WORST))]
    for column in ("attack", "view"):  # what knew the draws is no candidate for the worst case
        attacks = attacks[~attacks[column].str.endswith(KNOWN)]
    ran = attacks["status"] == "ok"
    clean = _row(frame[frame["attack"] == CLEAN])
    if clean is None:
        raise UserError(f"{results} has no verdict on all clean images of {defense}; finish the run")
    return ExportedRows(
        clean=clean,
        autoattack=None if stochastic else _row(frame[frame["attack"].isin(plain)]),
        worst=_row(frame[frame["attack"] == WORST]),
        name=str(lines[0]["identity"]["defense"]["name"]) if lines else defense,
        dataset=str(frame["dataset"].iloc[0]),
        norm=norm,
        eps=radius,
        stochastic=stochastic,
        passes=_passes([x for x in lines if x["attack"] == CLEAN]),
        attacks=int(ran.sum()),
        not_run=tuple(attacks[~ran]["attack"] + " (" + attacks[~ran]["view"] + ")"),
    )


def _of_threat(frame: pd.DataFrame, defense: str, eps: Any) -> pd.DataFrame:
    from bench.spec.threat import exact

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
    """The only row, if it is complete."""
    complete = frame[(frame["status"] == "ok") & (frame["coverage"] == 1)]
    return complete.iloc[0] if len(complete) == 1 else None


def _passes(lines: list[dict[str, Any]]) -> int:
    done = [x for x in lines if x["status"] == "ok"]
    draws = sum(x["images"] * (x["draws"] + x["selection"]) for x in done)
    return round(sum(x["forwards_verdict"] for x in done) / draws) if draws else 0


def export(
    results: str | Path, defense: str, *, eps: Any = None, given: Mapping[str, str | bool | int] | None = None
) -> ModelInfo:
    """A defense's entry, from what was measured and its card.

    Args:
        results: a results folder.
        defense: label of the defense there.
        eps: of the threat; may be None where there is one threat.
        given: further keys, as {"architecture": "ResNet-18"}, over those of the card; no measured ones.

    Returns:
        The entry; `clean_acc`, `autoattack_acc` (a deterministic defense that AutoAttack standard was run on) and
        `external` (the worst case over all attacks, where there is no such number or it is lower) are percentages
        with two decimals. RobustBench admits no defense that draws noise; the footnote of one says so.

    Raises:
        UserError: see `rows_of`; or a key that RobustBench has not or that is measured.
    """
    measured = {*PERCENTS, "eps", "dataset", "number_forward_passes"} - {"reported"}
    for key in given or {}:
        if key not in KEYS:
            raise unknown("key of model_info", key, set(KEYS) - measured)
        if key in measured:
            raise UserError(f"{key} is measured; leave it out")
    rows = rows_of(results, defense, eps=eps)
    if rows.autoattack is None and rows.worst is None:
        raise UserError(f"{results} has no complete worst case of {defense}; finish the run: purebench status tells")
    raw: dict[str, Any] = {**_card(rows), "number_forward_passes": rows.passes, "dataset": rows.dataset}
    raw |= {"eps": eps_text(Fraction(rows.eps)), "clean_acc": _percent(rows.clean)}
    if rows.autoattack is not None:
        raw["autoattack_acc"] = _percent(rows.autoattack)
    standard = 1.0 if rows.autoattack is None else float(rows.autoattack["robust_mean"])
    if rows.worst is not None and (rows.autoattack is None or float(rows.worst["robust_mean"]) < standard):
        raw["external"] = _percent(rows.worst)
    raw |= {"footnote": _footnote(rows), **(given or {})}
    return ModelInfo({key: raw[key] for key in KEYS if key in raw})


def _percent(row: pd.Series[Any]) -> str:
    return f"{100 * float(row['robust_mean']):.2f}"


def eps_text(eps: Fraction) -> str:
    """A radius as RobustBench prints it: "0.5", "8/255"."""
    rest = eps.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest == 1:
        return str(float(eps)) if eps.denominator > 1 else str(eps)
    return f"{eps * 255}/255" if 255 % eps.denominator == 0 else str(eps)


def _card(rows: ExportedRows) -> dict[str, Any]:
    """Bibliography and claim of a registered defense; of any other what RobustBench's own code cannot do without."""
    from bench.spec.threat import exact
    from defenses.zoo.cards import card, list_models

    if rows.name not in list_models():
        return {"link": "", "name": rows.name, "authors": "", "additional_data": None, "venue": "", "architecture": ""}
    known = card(rows.name)
    raw = {"link": known.url, "name": known.title, "authors": known.authors, "additional_data": None}
    raw |= {"venue": known.venue, "architecture": ""}
    for claim in known.claims:
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
