"""Build the report on a results folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from bench import __version__
from bench.report.document.model import Document, Facts, Grid, Section, Text
from bench.report.table import Table
from bench.reproducibility.answers.answer import HAND, NO, UNKNOWN, YES, Answer, State
from bench.reproducibility.availability import availability
from bench.reproducibility.checklist import NAMES, Checklist, Item, read_checklist
from bench.reproducibility.deviations import deviations
from bench.reproducibility.judged import audit, certificates, claims
from bench.reproducibility.made import cost, environment, repeat
from bench.reproducibility.protocol import defenses as defenses_section
from bench.reproducibility.protocol import protocol
from bench.reproducibility.report import Report
from bench.reproducibility.results import attacks, results
from bench.reproducibility.subject import Subject, subject_of
from bench.site.row import headline
from bench.store.kinds import folder_named

_KINDS = {YES: "good", NO: "bad", UNKNOWN: "warn", HAND: "warn"}
_STATES: tuple[State, ...] = ("yes", "no", "not measured", "not applicable", "by hand")
Answers = Sequence[tuple[Item, Answer]]


def build_report(
    results: str | Path,
    *,
    defenses: Collection[str] = (),
    checklists: Collection[str] = NAMES,
    audits: Iterable[str | Path] = (),
) -> Report:
    """Return the reproducibility report on a results folder: nothing is run, and no model is loaded.

    Args:
        results: the folder, of any kind.
        defenses: labels of the rows that it is on; empty: all.
        checklists: "carlini2019", "neurips", or both, which data answer as far as they can.
        audits: further results folders, whose audits count for defenses of the same fingerprint.

    Returns:
        The report: `.markdown()`, `.html()`, `.json()`, `.pdf()`, `.crate()`, `.save("report.html")`.

    Raises:
        UserError: no results there, a damaged file, or an unknown defense or checklist.
    """
    known = [read_checklist(name) for name in dict.fromkeys(checklists)]
    subject = subject_of(folder_named(results), defenses, [folder_named(folder) for folder in audits])
    answered = {checklist.name: list(checklist.answers(subject)) for checklist in known}
    sections = [protocol(subject), defenses_section(subject), *_numbers(subject), environment(subject), cost(subject)]
    sections += [deviations(subject), availability(subject), repeat(subject)]
    lists = [_checklist(checklist, answered[checklist.name], sections) for checklist in known]
    document = Document(
        f"Reproducibility report: {subject.title}",
        f"Made from the records of {subject.source.name} alone; nothing was run for it. Each number stands beside what "
        "speaks against it and the command that repeats it.",
        (_summary(subject, known, answered), *sections[:1], *lists, *sections[1:]),
        f"purebench report {__version__}",
    )
    return Report(document, subject, answered)


def _numbers(subject: Subject) -> list[Section]:
    return [results(subject), attacks(subject), claims(subject), audit(subject), certificates(subject)]


def _summary(
    subject: Subject, checklists: Sequence[Checklist], answered: dict[str, list[tuple[Item, Answer]]]
) -> Section:
    """Return the report in a few lines."""
    rows, facts = subject.rows, [("results", subject.source.name), ("kind", subject.source.kind)]
    if rows:
        ranked = sum(row.ranked for row in rows)
        audited = sum(row.values["audit"] != "none" for row in rows)
        facts.append(("defenses", f"{len(rows)}, {ranked} with a rank, {audited} audited"))
    for name, count in Counter(str(c["verdict"]) for row in rows for c in row.claims).items():
        facts.append((f"claims {name}", str(count)))
    facts += [(checklist.name, _counts(answered[checklist.name])) for checklist in checklists]
    best = [Text(f"{b.rows[0].label}: {headline(b, b.rows[0])}") for b in subject.boards if b.rows[0].ranked]
    return Section("summary", "Summary", (Facts(tuple(facts)), *best))


def _counts(answers: Answers) -> str:
    counts = Counter(answer.state for _, answer in answers)
    return ", ".join(f"{counts[state]} {state}" for state in _STATES if counts[state])


def _checklist(checklist: Checklist, answers: Answers, sections: Sequence[Section]) -> Section:
    """Return a checklist with its answers, which link to the sections that show them."""
    titles = {section.name: section.title for section in sections}
    groups: dict[str, list[tuple[Item, Answer]]] = {}
    for item, answer in answers:
        groups.setdefault(item.group, []).append((item, answer))
    grids = [_group(group, found, titles) for group, found in groups.items()]
    text = f"{checklist.url}, in our own words. {checklist.about}"
    return Section(f"checklist-{checklist.name}", checklist.title, (Text(text), *grids))


def _group(group: str, answers: Answers, titles: Mapping[str, str]) -> Grid:
    """Return the table of a group of items."""
    rows, links = [], {}
    for at, (item, answer) in enumerate(answers):
        see = titles.get(answer.section, "")
        if see:
            links[at, 3] = f"#{answer.section}"
        rows.append((item.line, answer.state, answer.evidence, see))
    columns = ("item", "answer", "evidence, or what is left to do", "see")
    title = f"{group[:1].upper()}{group[1:]}: {_counts(answers)}"
    return Grid(Table(title, columns, tuple(rows), left=4), links, _KINDS)
