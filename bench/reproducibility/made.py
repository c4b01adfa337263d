"""The sections on how numbers came about: environment, cost, and how to repeat each of them."""

from __future__ import annotations

from collections.abc import Iterator

from bench.report.attack_warnings import listed
from bench.report.crate_files import stored_files
from bench.report.document.model import Block, Code, Facts, Grid, Section, Text
from bench.report.table import Table
from bench.reproducibility.subject import Subject
from bench.site.model import Run, SiteRow
from bench.site.repeat import CLONE, commands, repeat_of, seconds
from bench.site.text import amount, missing
from defenses.utils.text import counted, human_time

_COMMIT = 10  # letters of a commit that tell it apart


def environment(subject: Subject) -> Section:
    """Return the runs with their code, machine and versions."""
    runs = subject.source.runs
    if not runs:
        return Section("environment", "Environment", (Text("No run is recorded: the folder has no manifest."),))
    columns = ("started (UTC)", "command", "commit", "time", "machine", "processes")
    table = Table("Runs", columns, tuple(map(_run, runs)), left=6)
    versions: dict[str, list[str]] = {}
    for run in runs:
        text = ", ".join(f"{name} {number}" for name, number in run.versions.items()) or "unknown"
        versions.setdefault(text, []).append(run.started.partition("T")[0] or "unknown")
    lines = tuple((", ".join(dict.fromkeys(days)), text) for text, days in versions.items())
    of_days = Facts(tuple((f"versions, {days}" if len(lines) > 1 else "versions", text) for days, text in lines))
    return Section("environment", "Environment", (Grid(table), of_days))


def _run(run: Run) -> tuple[str, ...]:
    commit = f"{run.commit[:_COMMIT]}{' with changes' if run.dirty else ''}" if run.commit else "unknown"
    time = "not finished" if missing(run.seconds) else human_time(run.seconds)
    started = run.started.replace("T", " ").replace("Z", "") or "unknown"
    return started, run.command or "unknown", commit, time, run.machine or "unknown", run.threads or "unknown"


def cost(subject: Subject) -> Section:
    """Return what runs, attacks and verdicts took."""
    lines, runs = subject.lines, subject.source.runs
    known = [run.seconds for run in runs if not missing(run.seconds)]
    facts = []
    if known:
        unfinished = f"; {len(runs) - len(known)} not finished" if len(known) < len(runs) else ""
        facts.append(("runs", f"{human_time(sum(known))} in {counted(len(known), 'run')}{unfinished}"))
    if lines:
        ran = [line for line in lines if line.get("status") == "ok"]
        attacks, verdicts = seconds(ran)
        facts += [("attacks", f"{human_time(attacks)} in {counted(len(ran), 'cell')}")]
        facts += [("verdicts", human_time(verdicts))]
        passes = sum(int(line.get("forwards") or 0) + 2 * int(line.get("backwards") or 0) for line in ran)
        facts += [("evaluations of networks by attacks", amount(passes))]
        judged = sum(int(line.get("forwards_verdict") or 0) for line in ran)
        facts += [("forward passes of verdicts", amount(judged))]
    size = sum(stored.size for stored in stored_files(subject.folder))
    facts.append(("size of the folder", f"{size / 1e6:.1f} MB"))
    facts.append(("memory, energy", "not recorded"))
    blocks: list[Block] = [Facts(tuple(facts))]
    if subject.rows:
        blocks.append(Grid(_costs(subject), long=True))
    return Section("cost", "Cost", tuple(blocks))


def _costs(subject: Subject) -> Table:
    """Return what an image took on each defense."""

    def text(value: float | None) -> str:
        return "not counted" if value is None or missing(value) else amount(value)

    rows = [
        (row.label, *(text(row.values[n]) for n in ("evaluations_per_image", "seconds_per_image")), text(row.passes))
        for row in subject.rows
    ]
    heads = ("defense", "evaluations an image", "seconds an image", "forward passes a prediction")
    return Table("Cost of each defense", heads, tuple(rows))


def repeat(subject: Subject) -> Section:
    """Return how to compute each number again, and how to check it."""
    source, name = subject.source, _name(subject)
    blocks: list[Block] = [Code("Commands of this folder", (*CLONE, *commands(source, name, subject.lines)))]
    if subject.rows:
        text = (
            "A cell keeps its key in later code. The first command of a row computes its numbers again in an empty "
            "folder, the second one judges stored images again, four of each cell (without --sample all). A seed fixes "
            "the noise; other code or another machine may flip single verdicts, which verify tells from ties."
        )
        blocks += [Text(text), Grid(_rows(subject))]
    sums = tuple(f"{sha}  {name}" for name, sha in source.files.items())
    blocks.append(Code("sha256 of the files", sums, long=len(sums) > 24))
    return Section("repeat", "How to repeat each number", tuple(blocks))


def _rows(subject: Subject) -> Table:
    """Return the commands of each row."""
    name, lines = _name(subject), []
    for row in _once(subject):
        cells = [line for line in subject.lines if line["defense"] == row.label]
        again = repeat_of(subject.source, name, row.label, cells)
        commits = listed([commit.sha[:_COMMIT] for commit in again.made.commits if commit.sha]) or "unknown"
        lines.append((row.label, again.run, again.verify, commits, str(len(cells))))
    heads = ("defense", "attack and judge again", "judge stored images again", "commits", "cells")
    return Table("Commands of each row", heads, tuple(lines), left=4)


def _name(subject: Subject) -> str:
    """Return the board, if no command names it."""
    return str(subject.manifest.get("board") or "BOARD.toml")


def _once(subject: Subject) -> Iterator[SiteRow]:
    """Yield the rows, each label once."""
    found: dict[str, SiteRow] = {}
    for row in subject.rows:
        found.setdefault(row.label, row)
    yield from found.values()
