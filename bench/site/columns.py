"""Columns of the leaderboard: what they hold, how a cell is shown, and to which group they belong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from bench.analysis.records import CLEAN
from bench.report.format import rank_range, second_hand
from bench.site.model import SiteBoard, SiteRow, slugs
from bench.site.outcomes import of_version
from bench.site.text import amount, bar, interval, link, missing, percent
from bench.spec.view_words import status_words, view_words

GROUPS = {  # name: title
    "core": "verdict",
    "clean": "clean images",
    "draws": "draws",
    "claim": "claim of the paper",
    "gradients": "gradients",
    "cost": "cost",
    "about": "about the defense",
    "attacks": "attacks",
}
FIRST = ("core", "clean", "claim")  # shown at first; on a phone the verdict alone


@dataclass(frozen=True)
class TableCell:
    """A cell of the leaderboard.

    Args:
        text: shown.
        value: number by which rows are sorted, at full precision; None: the text, or nothing if `absent`.
        low: lower end of the interval.
        high: upper end.
        absent: True if there is no value, and the text says why.
        title: more words, for a pointer.
        kind: CSS class of the text.
    """

    text: str | Markup
    value: float | None = None
    low: float | None = None
    high: float | None = None
    absent: bool = False
    title: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Column:
    """A column of the leaderboard.

    Args:
        key: name in the address, and in the CSV of the rows, where it is the name in `bench.leaderboard`.
        head: heading.
        group: a key of `GROUPS`.
        term: anchor of its explanation on the page of methods.
        cell: of a row.
        ends: names of the interval's ends in the CSV; empty: it has none.
        text: True for a column of words.
        rising: True if a first click sorts from low to high.
    """

    key: str
    head: str
    group: str
    term: str
    cell: Callable[[SiteRow], TableCell]
    ends: tuple[str, str] | tuple[()] = ()
    text: bool = False
    rising: bool = False


def columns_of(board: SiteBoard) -> list[Column]:
    """Return the columns of a board; those without a value in any row are left out, but for the verdict."""
    attacks: dict[str, list[tuple[str, str]]] = {}
    for attack, name in board.columns.items():
        if attack[0] not in (CLEAN, "worst case"):
            attacks.setdefault(name, []).append(attack)
    more = [
        Column(f"a-{slug}", name, "attacks", "attack-columns", _attack(tuple(pairs)))
        for slug, (name, pairs) in zip(slugs(attacks), attacks.items(), strict=True)
    ]
    known = [c for c in _COLUMNS if c.group == "core" or not all(c.cell(row).absent for row in board.rows)]
    return [*known, *more]


def _share(name: str, absent: str = "not run") -> Callable[[SiteRow], TableCell]:
    """Return the function that gives a share with its interval.

    Args:
        name: of the columns <name>_mean or <name>, <name>_low and <name>_high.
        absent: text without a value.
    """

    def cell(row: SiteRow) -> TableCell:
        at = f"{name}_mean" if f"{name}_mean" in row.values else name
        mean, low, high = (row.values.get(key) for key in (at, f"{name}_low", f"{name}_high"))
        if mean is None or low is None or high is None:
            return TableCell(absent, absent=True)
        n, text = int(row.values["n_images"]), Markup('{} <span class="w">{}</span>')
        return TableCell(text.format(percent(mean, n), interval(low, high, n)), mean, low, high)

    return cell


def _worst(row: SiteRow) -> TableCell:
    cell = _share("worst")(row)
    if cell.value is None or cell.low is None or cell.high is None:
        return cell
    drawn = Markup("{}{}").format(cell.text, bar(cell.value, cell.low, cell.high))
    return TableCell(drawn, cell.value, cell.low, cell.high)


def _rank(row: SiteRow) -> TableCell:
    low, high = row.values["rank_low"], row.values["rank_high"]
    return TableCell("none", absent=True) if low is None else TableCell(rank_range(low, high), low, low, high)


def audit_words(row: SiteRow) -> tuple[str, str]:
    """Return what the audit of a defense says, and the CSS class of these words."""
    words, kind = _audit_words(row)
    return of_version(words, row.values["audit_version"]), kind


def _audit_words(row: SiteRow) -> tuple[str, str]:
    counted = [check for check in row.checks if check["status"] != "not applicable"]
    failed = sum(check["status"] == "fail" for check in counted)
    state = row.values["audit"]
    if state == "fail":
        return (f"✗ fails {failed} of {len(counted)}" if failed else "✗ fails"), "bad"
    if state == "pass":
        return f"✓ passes {len(counted)} of {len(counted)}" if counted else "✓ passes", "good"
    return ("? not measurable", "warn") if state == "not measurable" else ("not audited", "q")


def audit_address(row: SiteRow) -> str:
    """Return the address of the audit of a row, of one that fails first; "" without an audit."""
    failed = [check for check in row.checks if check["audit"] == "fail"]
    return f"a/{(failed or row.checks)[0]['fingerprint']}.html" if row.checks else ""


def _audit(row: SiteRow) -> TableCell:
    words, kind = audit_words(row)
    address = audit_address(row)
    shown = Markup('<a href="../../{}">{}</a>').format(address, words) if address else words
    return TableCell(shown, absent=row.values["audit"] == "none", kind=kind, title=str(row.values["audit_failed"]))


def _attacked(row: SiteRow) -> TableCell:
    if attack := row.values["worst_attack"]:
        return TableCell(attack, title=view_words(row.values["worst_view"]))
    status = str(row.values["status"])
    return TableCell("none breaks an image" if status == "ok" else status.partition(":")[0], absent=True)


def _drop(row: SiteRow) -> TableCell:
    clean, worst, targeted = row.values["clean_mean"], row.values["worst_mean"], row.values["targets"] != "none"
    if clean is None or worst is None or targeted:  # a targeted worst case counts wrong draws too
        return TableCell("targeted" if targeted else "not run", absent=True)
    return TableCell(percent(clean - worst, int(row.values["n_images"])), clean - worst)


def _claimed(row: SiteRow) -> TableCell:
    share = row.values["claim_robust"]
    if share is None:
        return TableCell("none known", absent=True)
    return TableCell(
        Markup('{:.1f} <span class="w">{}</span>').format(100 * share, _on(row)), share, title=row.values["claim"]
    )


def _on(row: SiteRow) -> str:
    """Return data set and threat of the claim of a row, marked if it is second-hand."""
    return str(row.values["claim"]).partition(",")[0] + second_hand(row.values["claim_evidence"])


_VERDICTS = {
    "refuted": ("✗", "bad"),
    "consistent": ("✓", "good"),
    "not reached": ("▽", "warn"),
    "not comparable": ("", "q"),
}


def verdict_words(word: str) -> tuple[str, str]:
    """Return a verdict on a claim with its symbol, and the CSS class."""
    symbol, kind = _VERDICTS.get(word, ("", "q"))
    return f"{symbol} {word}".strip(), kind


def _verdict(row: SiteRow) -> TableCell:
    word = row.values["claim_verdict"]
    words, kind = verdict_words(word) if word else ("none known", "q")
    return TableCell(words, absent=not word, kind=kind, title=row.values["claim_reason"])


def _certificate(row: SiteRow) -> TableCell:
    state = str(row.values["certificate"])
    if state in ("certified", "not needed"):
        return TableCell(
            "✓ certified" if state == "certified" else "none needed", kind="good" if state == "certified" else "q"
        )
    return TableCell(f"† {state}", kind="warn", title=state)


def _gradients(row: SiteRow) -> TableCell:
    modes = dict.fromkeys(a["gradient"] for a in row.attacks if a["gradient"] and a["robust_mean"] is not None)
    return TableCell(", ".join(modes)) if modes else TableCell("none", absent=True)


def _number(name: str, absent: str = "not counted") -> Callable[[SiteRow], TableCell]:
    """Return the function that gives a cost."""

    def cell(row: SiteRow) -> TableCell:
        value = row.passes if name == "passes" else row.values.get(name)
        if value is None or missing(value):
            return TableCell(absent, absent=True)
        return TableCell(amount(value), value)

    return cell


def _paper(row: SiteRow) -> TableCell:
    if row.about.year is None:
        return TableCell("none", absent=True)
    return TableCell(link(row.values["url"], str(row.about.year)), row.about.year, title=row.values["paper"])


def _words(text: Callable[[SiteRow], str], absent: str = "unknown") -> Callable[[SiteRow], TableCell]:
    """Return the function that gives a text."""
    return lambda row: TableCell(text(row)) if text(row) else TableCell(absent, absent=True)


def _attack(pairs: tuple[tuple[str, str], ...]) -> Callable[[SiteRow], TableCell]:
    """Return the function that gives the accuracy under an attack, or why there is none."""

    def cell(row: SiteRow) -> TableCell:
        found = [a for a in row.attacks if (a["attack"], a["view"]) in pairs]
        if not found:
            return TableCell("not planned", absent=True)
        return _accuracy(found[0])

    return cell


def _accuracy(attack: Mapping[str, Any]) -> TableCell:
    share, status = attack["robust_mean"], status_words(str(attack["status"]))
    if share is None:
        return TableCell(status[:60], absent=True, kind="q", title=status if len(status) > 60 else "")
    star = "" if status == "ok" else "*"
    return TableCell(percent(share, int(attack["n_images"])) + star, share, title="" if status == "ok" else status)


def _kind(row: SiteRow) -> str:
    return "randomised" if row.values["stochastic"] else "deterministic"


def _ends(name: str) -> tuple[str, str]:
    return f"{name}_low", f"{name}_high"


_ONE = "deterministic"  # why there is no number of several draws
_COLUMNS = (
    Column("rank_low", "rank", "core", "rank-range", _rank, ("rank_low", "rank_high"), rising=True),
    Column("worst_mean", "worst case % [95 %]", "core", "worst-case", _worst, _ends("worst")),
    Column("audit", "audit", "core", "audit", _audit, text=True, rising=True),
    Column("worst_attack", "strongest attack", "core", "strongest-attack", _attacked, text=True, rising=True),
    Column("clean_mean", "clean % [95 %]", "clean", "clean", _share("clean"), _ends("clean")),
    Column("drop", "drop", "clean", "drop", _drop),
    Column("kind", "kind", "draws", "draws", _words(_kind), text=True, rising=True),
    Column("draws", "draws", "draws", "draws", _number("draws")),
    Column("rob_m5", "Rob(5) %", "draws", "rob", _share("rob_m5", _ONE), _ends("rob_m5")),
    Column("rob_m15", "Rob(15) %", "draws", "rob", _share("rob_m15", _ONE), _ends("rob_m15")),
    Column("majority", "majority %", "draws", "majority", _share("majority"), _ends("majority")),
    Column("mean_logit", "mean logit %", "draws", "majority", _share("mean_logit"), _ends("mean_logit")),
    Column("claim_robust", "claimed %", "claim", "claim", _claimed),
    Column("claim_verdict", "verdict", "claim", "claim", _verdict, text=True, rising=True),
    Column("certificate", "certificate", "gradients", "certificate", _certificate, text=True, rising=True),
    Column("gradients", "gradients met", "gradients", "gradients", _gradients, text=True, rising=True),
    Column("evaluations_per_image", "evaluations", "cost", "evaluations", _number("evaluations_per_image")),
    Column("seconds_per_image", "seconds", "cost", "seconds", _number("seconds_per_image")),
    Column("passes", "passes a prediction", "cost", "passes", _number("passes")),
    Column("year", "paper", "about", "paper", _paper),
    Column("venue", "venue", "about", "paper", _words(lambda row: row.about.venue, "none"), text=True, rising=True),
    Column("licence", "licence", "about", "licence", _words(lambda row: row.about.licence), text=True, rising=True),
    Column("parts", "parts", "about", "parts", _words(lambda row: parts(row)), text=True, rising=True),
    Column("n_seeds", "trainings", "about", "trainings", _number("n_seeds")),
)  # fmt: skip


def parts(row: SiteRow) -> str:
    """Return the parts of a defense, in the order in which an image passes them."""
    return " → ".join(f"{part.name} ({part.role})" for part in row.about.parts)
