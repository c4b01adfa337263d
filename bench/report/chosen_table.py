"""The table of a leaderboard with chosen columns, order and digits, for papers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.analysis.caveats import CERTIFIED, NOT_NEEDED
from bench.report.format import ABSENT, rank_range, second_hand
from bench.report.table import Table
from defenses.utils.errors import UserError, check_whole, unknown
from defenses.utils.names import portable

if TYPE_CHECKING:
    import pandas as pd

_SETTING = ("board", "dataset", "split", "indices", "norm", "eps", "targets")
Line = dict[str, Any]


class _Kind(NamedTuple):
    """A column of the table.

    Args:
        header: its name there.
        cell: returns its text for a row and a number of digits.
        order: column of the leaderboard that sorts by it.
        ascending: the least comes first.
        best: values of that column, the best first; empty: they are numbers or names.
    """

    header: str
    cell: Callable[[Line, int], str]
    order: str = ""
    ascending: bool = False
    best: tuple[str, ...] = ()


def _share(name: str, *, ends: bool = False) -> Callable[[Line, int], str]:
    """Return what writes a share in percent, with its interval."""

    def cell(line: Line, digits: int) -> str:
        mean, low, high = (100 * line.get(f"{name}{end}", float("nan")) for end in ("_mean", "_low", "_high"))
        mean = 100 * line[name] if name in line else mean
        if mean != mean:
            return ABSENT
        return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]" if ends else f"{mean:.{digits}f}"

    return cell


def _rank(line: Line, _: int) -> str:
    low = line["rank_low"]
    return ABSENT if low != low or low is None else rank_range(low, line["rank_high"])


def _claimed(line: Line, digits: int) -> str:
    share, setting = _share("claim_robust")(line, digits), str(line["claim"]).partition(",")[0]
    if share == ABSENT:
        return share
    other = "" if setting == f"{line['dataset']} {line['norm']} {line['eps']}" else f" on {setting}"
    return f"{share}{other}{second_hand(str(line['claim_evidence']))}"


def _whole(name: str) -> Callable[[Line, int], str]:
    def cell(line: Line, _: int) -> str:
        return f"{line[name]:,.0f}" if line[name] == line[name] else ABSENT

    return cell


def _text(name: str) -> Callable[[Line, int], str]:
    return lambda line, _: str(line[name]) or ABSENT


def _certificate(line: Line, _: int) -> str:
    state = str(line["certificate"])
    return {CERTIFIED: "yes", NOT_NEEDED: "not needed"}.get(state, "no")


_VERDICTS = ("consistent", "not reached", "refuted", "not comparable")
COLUMNS = {
    "rank": _Kind("rank", _rank, "rank_low", ascending=True),
    "clean": _Kind("clean", _share("clean"), "clean_mean"),
    "clean-interval": _Kind("clean [95 %]", _share("clean", ends=True), "clean_mean"),
    "worst": _Kind("worst case [95 %]", _share("worst", ends=True), "worst_mean"),
    "rob5": _Kind("Rob(5)", _share("rob_m5"), "rob_m5"),
    "audit": _Kind("audit", _text("audit"), "audit", best=("pass", "not measurable", "none", "fail")),
    "certificate": _Kind("certificate", _certificate, "certificate", best=(CERTIFIED, NOT_NEEDED)),
    "attack": _Kind("strongest attack", _text("worst_attack"), "worst_attack", ascending=True),
    "claim": _Kind("claimed", _claimed, "claim_robust"),
    "verdict": _Kind("claim", _text("claim_verdict"), "claim_verdict", best=_VERDICTS),
    "evaluations": _Kind("evaluations", _whole("evaluations_per_image"), "evaluations_per_image", ascending=True),
    "images": _Kind("images", _whole("n_images"), "n_images"),
    "draws": _Kind("draws", _whole("draws"), "draws"),
    "paper": _Kind("paper", _text("paper"), "paper", ascending=True),
}
_DEFAULT = ("clean", "worst", "rob5", "rank", "audit")  # six columns with the name
_NAME = "defense"
_BOLD = "Bold: the best beyond doubt."


def chosen_table(
    leaders: pd.DataFrame, *, columns: Sequence[str] = (), sort: str = "worst", digits: int = 1, bold: bool = True
) -> list[Table]:
    """Return the rows of `bench.leaderboard` as a table for each board and threat.

    Args:
        leaders: the rows.
        columns: keys of `COLUMNS`, in their order; empty: clean accuracy, worst case, Rob(5), rank and audit, those
            that have something to say.
        sort: a key of `COLUMNS`, the best first; "defense": by name; "board": as the board has them.
        digits: after the point, in [0, 4].
        bold: the format shows strong rows in bold, which a note explains.

    Raises:
        UserError: an unknown column or order, or too many digits.
    """
    for name in columns:
        if name not in COLUMNS:
            raise unknown("column", name, COLUMNS)
    if sort not in (*COLUMNS, _NAME, "board"):
        raise unknown("order", sort, [*COLUMNS, _NAME, "board"])
    check_whole(0, digits=digits)
    if digits > 4:
        raise UserError(f"digits is {digits}; it must be at most 4")
    lines: list[Line] = leaders.to_dict("records")  # type: ignore[assignment]
    names = columns or [name for name in _DEFAULT if any(_said(name, line, digits) for line in lines)]
    groups = leaders.groupby(list(_SETTING), sort=False)
    tables = [_of_threat(frame, names, sort, digits) for _, frame in groups]
    return [replace(t, footnotes=(*t.footnotes, _BOLD)) if bold and t.strong else t for t in tables]


def _of_threat(frame: pd.DataFrame, names: Sequence[str], sort: str, digits: int) -> Table:
    frame = _sorted(frame, sort)
    lines: list[Line] = frame.to_dict("records")  # type: ignore[assignment]
    rows = tuple((str(line[_NAME]), *(COLUMNS[name].cell(line, digits) for name in names)) for line in lines)
    first = lines[0]
    target = "" if first["targets"] == "none" else f", target {first['targets']}"
    title = f"{portable(str(first['dataset']))} {first['split']}, {first['norm']} {first['eps']}{target}"
    several = frame["rank_low"].notna().sum() > 1 and "worst" in names
    best = [at for at, line in enumerate(lines) if line["rank_low"] == 1 and line["rank_high"] == 1]
    sure = frozenset(best if several else ())
    columns, name = (_NAME, *(COLUMNS[name].header for name in names)), f"{first['board']} {title}"
    return Table(title, columns, rows, _notes(frame, names), strong=sure, name=name)


def _sorted(frame: pd.DataFrame, sort: str) -> pd.DataFrame:
    if sort == "board":
        return frame
    kind = COLUMNS.get(sort)
    by, ascending = (kind.order, kind.ascending) if kind else (_NAME, True)
    if kind and kind.best:
        places = {value: at for at, value in enumerate(kind.best)}
        return frame.iloc[frame[by].map(lambda value: places.get(value, len(places))).argsort(kind="stable")]
    found = frame.sort_values(by, ascending=ascending, kind="stable", na_position="last")
    # A row without a rank may have the best number because its attacks were not fit to judge it.
    return found.iloc[found["rank_low"].isna().argsort(kind="stable")] if sort == "worst" else found


def _said(name: str, line: Line, digits: int) -> bool:
    return COLUMNS[name].cell(line, digits) not in (ABSENT, "none")


def _notes(frame: pd.DataFrame, names: Collection[str]) -> tuple[str, ...]:
    """Return what the numbers are."""
    images = sorted(frame["n_images"].unique().tolist())
    count = f"{images[0]}" if len(images) == 1 else f"{images[0]} to {images[-1]}"
    draws = sorted(frame.loc[frame["stochastic"], "draws"].unique().tolist())
    random = f"; random defenses: mean of {' or '.join(map(str, draws))} held-out draws" if draws else ""
    notes = [f"Percent of {count} images{random}. Worst case: for each image the strongest of all attacks."]
    if "rank" in names:
        notes.append("Rank: the ranks that paired tests on these images leave, 95 %.")
    if (frame["targets"] != "none").any():
        notes.append("The worst case counts draws that do not give the target; clean accuracy counts right ones.")
    if "rob5" in names:
        notes.append("Rob(5): right in all of five submissions.")
    claims = frame[frame["claim_robust"].notna()]
    if "claim" in names and len(claims):
        apart = int((claims["claim_verdict"] == "not comparable").sum())
        notes.append(
            "Claimed: by the paper, of its own network"
            + (f"; {apart} of {len(claims)} cannot be compared with the row beside." if apart else ".")
        )
    if "claim" in names and (frame["claim_evidence"] == "secondary").any():
        notes.append("Secondary: a claim that was read in a later work, not in the paper itself.")
    if frame["rank_low"].isna().any():
        notes.append("No rank: the audit fails, or verdicts are missing.")
    return tuple(notes)
