"""The sections that hold numbers against something: claims, audits, certificates."""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.claims import NOT_COMPARABLE
from bench.report.attack_warnings import listed
from bench.report.document.model import Block, Grid, Section, Text
from bench.report.format import second_hand
from bench.report.table import Table
from bench.reproducibility.subject import Subject, Values
from bench.site.claim_texts import claim_texts
from bench.site.columns import audit_words, verdict_words
from bench.site.outcomes import audit_texts, check_texts, measured_texts, of_version
from defenses.utils.text import counted

_KINDS = {"✗ refuted": "bad", "✓ consistent": "good", "▽ not reached": "warn", "✗ fails": "bad", "✓ passes": "good"}
_KINDS |= {"? not measurable": "warn", "not audited": "warn"}
_KINDS |= {of_version(words, 0): kind for words, kind in _KINDS.items()}


def claims(subject: Subject) -> Section:
    """Return the published accuracies beside the measured ones, and their protocols beside the full one."""
    found = [(row.label, claim) for row in subject.rows for claim in row.claims]
    protocols = [Grid(table) for board in subject.boards for table in board.protocol_tables]
    if not found:
        none = Text("No published accuracy of these defenses is known here.")
        return Section("claims", "Claims", (none, *protocols))
    compared = [known for known in found if known[1]["verdict"] != NOT_COMPARABLE]
    own = _foremost(subject)
    rest = [known for known in found if known not in compared and known not in own]
    blocks: list[Block] = [Text(_counts([claim for _, claim in found])), *protocols]
    if compared:
        blocks.append(_table("Claims that can be compared", compared))
    if others := [known for known in own if known not in compared]:
        blocks.append(_table("Claims of the authors that cannot be compared, one for each defense", others))
    if rest:
        blocks.append(_table("Further claims that cannot be compared", rest, long=True))
    return Section("claims", "Claims", tuple(blocks))


def _counts(found: list[Values]) -> str:
    words = list(dict.fromkeys(str(claim["verdict"]) for claim in found))
    counts = ", ".join(f"{sum(claim['verdict'] == word for claim in found)} {word}" for word in words)
    return (
        f"{counted(len(found), 'published accuracy').replace('accuracys', 'accuracies')}: {counts}. Only a claim's own "
        "weights, data set, norm and radius can refute it."
    )


def _foremost(subject: Subject) -> list[tuple[str, Values]]:
    """Return one claim of the authors of each defense: that of the leaderboard."""
    found = []
    for row in subject.rows:
        own = [claim for claim in row.claims if claim["kind"] == "claim"]
        same = [c for c in own if c["claimed_robust"] == row.values["claim_robust"]]
        found += [(row.label, claim) for claim in (same or own)[:1]]
    return found


def _table(title: str, found: list[tuple[str, Values]], *, long: bool = False) -> Grid:
    rows: list[tuple[str, ...]] = []
    links: dict[tuple[int, int], str] = {}
    for label, claim in found:
        texts = claim_texts(claim)
        if texts["url"]:
            links[len(rows), 1] = str(texts["url"])
        verdict = verdict_words(str(claim["verdict"]))[0]
        robust = f"{texts['robust']}{second_hand(str(claim['evidence']))}"
        rows.append((label, texts["by"], texts["on"], robust, texts["measured"], verdict, texts["why"]))
    columns = ("defense", "claimed by", "on", "claimed %", "measured % [95 %]", "verdict", "why")
    return Grid(Table(title, columns, tuple(rows), left=3, tail=2), links, _KINDS, long)


def audit(subject: Subject) -> Section:
    """Return the outcome of the audits: what fails with its evidence, all checks below."""
    rows: list[tuple[str, ...]] = []
    without: list[str] = []
    if subject.boards:
        for row in subject.rows:
            if row.values["audit"] == "none":
                without.append(row.label)
            else:
                rows.append((row.label, audit_words(row)[0], _evidence(row.checks) or str(row.values["audit_failed"])))
    else:
        rows = [(label, _state(checks), _evidence(checks)) for label, checks in subject.audited]
    blocks: list[Block] = []
    if rows:
        table = Table("Audits", ("defense", "outcome", "checks that do not pass"), tuple(rows), left=3)
        blocks.append(Grid(table, kinds=_KINDS))
    if without:
        text = f"Not audited: {listed(list(dict.fromkeys(without)))}. purebench audit checks if their attacks were fit."
        blocks.append(Text(text))
    if checks := _checks(subject):
        blocks.append(Grid(checks, kinds=_KINDS, long=len(checks.rows) > 120))
    return Section("audit", "Audit", tuple(blocks) or (Text("There is no audit here."),))


def _state(checks: Sequence[Values]) -> str:
    return str(audit_texts(checks[0])["words"])


def _evidence(checks: Sequence[Values]) -> str:
    failed = [c for c in checks if c["status"] not in ("pass", "not applicable")]
    return "; ".join(f"{c['check']}: {c['evidence']}" for c in failed) or "none"


def _checks(subject: Subject) -> Table | None:
    """Return each check of each audit."""
    texts = [(label, check_texts(check)) for label, checks in subject.audited for check in checks]
    rows = tuple((label, str(c["check"]), str(c["words"]), str(c["evidence"])) for label, c in texts)
    return Table("All checks", ("defense", "check", "outcome", "evidence"), rows, left=4) if rows else None


def certificates(subject: Subject) -> Section:
    """Return the gradient certificates: the state of each defense, all measurements below."""
    if not subject.rows:
        return Section("certificates", "Certificates", (Text("No gradient of a defense was used here."),))
    states: dict[str, list[str]] = {}
    for row in subject.rows:
        states.setdefault(str(row.values["certificate"]), []).append(row.label)
    rows = tuple((state, str(len(labels)), listed(labels)) for state, labels in states.items())
    heads = ("exact gradients", "defenses", "which")
    blocks: list[Block] = [Grid(Table("Gradient certificates", heads, rows, left=1, tail=1))]
    measured = [(row.label, measured_texts(found)) for row in subject.rows for found in row.certificate]
    lines = tuple(
        (label, str(m["check"]), str(m["words"]), str(m["value"]), str(m["limit"]), str(m["note"] or ""))
        for label, m in measured
    )
    if lines:
        columns = ("defense", "measurement", "outcome", "worst value", "limit", "note")
        table = Table("All measurements", columns, lines, left=3, tail=1)
        blocks.append(Grid(table, kinds=_KINDS, long=len(lines) > 24))
    return Section("certificates", "Certificates", tuple(blocks))
