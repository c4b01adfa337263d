"""The section of deviations: what a reader has to know before taking a number for what it seems."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bench.analysis.caveats import CERTIFIED, NOT_NEEDED
from bench.attacks.budgets import small_search
from bench.report.attack_warnings import listed
from bench.report.document.model import Bullets, Section, Text
from bench.reproducibility.subject import Subject, attacks_of, warnings_of
from bench.site.board import unranked
from bench.site.model import SiteBoard
from bench.site.text import missing
from bench.spec.view_words import status_words
from defenses.utils.text import counted

_SEARCHES = {"short": "short budget", "greedy": "one greedy path", "": "attack"}
_STATES = {"error": "ended in an error", "unsupported": "cannot run", "missing": "has no result"}


def deviations(subject: Subject) -> Section:
    """Return what was short, missing, mixed or unchecked."""
    found = tuple(dict.fromkeys(_all(subject)))
    blocks = (Bullets(found),) if found else (Text("None that the data show."),)
    return Section("deviations", "Deviations", blocks)


def _all(subject: Subject) -> Iterator[str]:
    for board in subject.boards:
        yield from _budgets(board)
        yield from _incomplete(board)
    yield from _cells(subject)
    yield from _runs(subject)
    yield from _trust(subject)
    for board in subject.boards:
        yield from board.notes
        yield from (note if note.startswith(row.label) or row.label in note else f"{row.label}: {note}"
                    for row in board.rows for note in row.notes)  # fmt: skip
    if subject.partial:
        yield f"this report has {len(subject.rows)} of {subject.count} rows"


def _budgets(board: SiteBoard) -> Iterator[str]:
    """Yield short budgets, greedy paths and other warnings of attacks, in this order, each once."""
    if board.budget not in ("", "full"):
        yield f"{board.threat}: the board calls its attacks {board.budget}"
    found: dict[str, dict[tuple[str, str], list[str]]] = {word: {} for word in _SEARCHES}
    for row in board.rows:
        for attack in attacks_of(row):
            for text in warnings_of(attack):
                found[small_search(text)].setdefault((attack["attack"], text), []).append(row.label)
    for word, kind in _SEARCHES.items():
        yield from (f"{kind}: {attack} on {_names(labels)}: {text}" for (attack, text), labels in found[word].items())


def _incomplete(board: SiteBoard) -> Iterator[str]:
    """Yield the rows without a rank or without verdicts."""
    for row in board.rows:
        if why := unranked(row)[1]:
            yield f"{row.label}: {why}"
        elif row.values["status"] != "ok":
            yield f"{row.label}: {status_words(str(row.values['status']))}"


def _cells(subject: Subject) -> Iterator[str]:
    """Yield the cells without a result, by state and reason."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for line in subject.lines:
        if (state := str(line.get("status"))) in _STATES:
            found.setdefault((state, str(line["attack"]), str(line.get("error") or "")), []).append(line["defense"])
    for (state, attack, reason), labels in found.items():
        why = f": {reason}" if reason else ""
        yield f"{attack} {_STATES[state]} on {_names(labels)} ({counted(len(labels), 'cell')}){why}"


def _runs(subject: Subject) -> Iterator[str]:
    """Yield what differs between runs, and what is not known of them."""
    runs = subject.source.runs
    if not runs:
        yield "no run is recorded, so neither commit nor machine are known"
        return
    for name, values in (("machines", {run.machine for run in runs}), ("commits", {run.commit[:10] for run in runs})):
        if len(values) > 1:
            yield f"runs on {len(values)} {name}: {listed(sorted(value or 'unknown' for value in values))}"
    if len({tuple(run.versions.items()) for run in runs}) > 1:
        yield "runs with several sets of versions: see the environment"
    counts = {
        "with uncommitted changes": sum(run.dirty for run in runs),
        "of an unknown commit": sum(not run.commit for run in runs),
        "that did not finish": sum(missing(run.seconds) for run in runs),
    }
    yield from (f"{counted(count, 'run')} {what}" for what, count in counts.items() if count)
    if subject.lost:
        yield f"{subject.lost}: their commit, machine and versions are not known"


def _trust(subject: Subject) -> Iterator[str]:
    """Yield audits and certificates that are missing, fail, or no longer count."""
    states: dict[str, list[str]] = {}
    for row in subject.attacked:
        states.setdefault(str(row.values["audit"]), []).append(row.label)
    words = {"none": "not audited", "fail": "audit fails", "not measurable": "audit not measurable"}
    yield from (f"{text}: {_names(states[state])}" for state, text in words.items() if state in states)
    if subject.earlier:
        yield f"audit of an earlier version: {_names(subject.earlier)}; purebench audit makes today's"
    yield from (f"audit of {label} no longer counts: {reason}" for label, reason in subject.outdated)
    for row in subject.attacked:
        state = str(row.values["certificate"])
        if state not in (CERTIFIED, NOT_NEEDED):
            yield f"exact gradients of {row.label} are not certified: {state}"


def _names(labels: Iterable[str]) -> str:
    return listed(list(dict.fromkeys(labels)))
