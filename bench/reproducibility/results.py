"""The sections of numbers: worst cases, attacks, and tables that are no board."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bench.attacks.budgets import small_search
from bench.report.chosen_table import COLUMNS, chosen_table
from bench.report.document.model import Block, Drawing, Grid, Section, Text
from bench.report.table import Table
from bench.reproducibility.subject import Subject, Values, warnings_of
from bench.site.model import SiteBoard, SiteRow
from bench.site.row_attacks import ONE_DRAW, attack_texts
from bench.spec.view_words import status_words

_COLUMNS = ("rank", "worst", "attack", "clean", "rob5", "audit", "certificate", "evaluations")
_SHOWN = ("ranks", "clean-robust", "corruptions", "certified")  # pictures
_NOTES = {
    "deciding": "deciding: alone breaks the most images",
    "short": "short: fewer steps or queries than advised; the deviations have the numbers",
    "greedy": "greedy: follows one path to the nearest boundary; no robustness is reported from it alone",
    "seed known": "seed known: the attacker knows the noise of the judged draw; no candidate for the worst case",
}
_FINE = 10_000  # images from which on a second decimal means something


def results(subject: Subject) -> Section:
    """Return the worst case of each defense, or the tables of other tracks."""
    blocks: list[Block] = [Grid(table) for table in _leaders(subject)]
    blocks += [Grid(table) for track in subject.tracks for table in track.tables]
    shown = [picture for board in subject.boards for picture in board.pictures]
    shown += [picture for track in subject.tracks for picture in track.pictures]
    if not subject.partial:
        blocks += [Drawing(picture.alt, picture) for picture in shown if picture.name in _SHOWN]
    else:
        blocks.append(Text("Ranks are among all rows of the board, of which this report has some."))
    if not blocks:
        blocks.append(Text("The folder has audits alone; see there."))
    return Section("results", "Results", tuple(blocks))


def _leaders(subject: Subject) -> list[Table]:
    """Return the leaderboard of each threat, of the reported rows."""
    if subject.leaders is None or not subject.rows:
        return []
    labels = {row.label for row in subject.rows}
    frame = subject.leaders[subject.leaders["defense"].isin(labels)]
    digits = 2 if frame["n_images"].max() >= _FINE else 1
    known = [name for name in _COLUMNS if name != "rob5" or frame["rob_m5"].notna().any()]
    tables = chosen_table(frame, columns=known, digits=digits)
    return [_one_draw(table, subject) for table in tables]


def _one_draw(table: Table, subject: Subject) -> Table:
    """Return a leaderboard that says why deterministic rows have no Rob(5), in the words of the attacks below."""
    if (head := COLUMNS["rob5"].header) not in table.columns:
        return table
    at = table.columns.index(head)
    single = {row.label for row in subject.rows if not row.values["stochastic"]}
    rows = [(*row[:at], ONE_DRAW, *row[at + 1 :]) if row[0] in single else row for row in table.rows]
    return replace(table, rows=tuple(rows))


def attacks(subject: Subject) -> Section:
    """Return every attack on every defense."""
    grids = [Grid(_of_board(board)) for board in subject.boards]
    empty = (Text("No attack of a board is here."),)
    return Section("attacks", "Attacks", tuple(grids) or empty)


def _of_board(board: SiteBoard) -> Table:
    random = any(row.values["stochastic"] for row in board.rows)
    heads = ("defense", "attack", "view", "accuracy % [95 %]", *(("Rob(5) %",) if random else ()), "success %",
             "median size", "evaluations", "seconds", "remarks")  # fmt: skip
    lines = [_line(row, found, random) for row in board.rows for found in row.attacks]
    said = {word for line in lines for word in line[-1].split("; ")}
    notes = tuple(text for word, text in _NOTES.items() if word in said)
    return Table(f"All attacks, {board.threat}", heads, tuple(lines), notes, left=3, tail=1)


def _line(row: SiteRow, found: Values, random: bool) -> tuple[str, ...]:
    texts = attack_texts(found, row)
    rob = (texts["rob_text"],) if random else ()
    numbers = (texts["accuracy"], *rob, texts["success"], texts["size"], texts["evaluations"], texts["seconds"])
    return (row.label, texts["name"], texts["view"], *numbers, "; ".join(_remarks(found, deciding=texts["strong"])))


def _remarks(found: Values, *, deciding: bool) -> Iterator[str]:
    """Yield what is to be said of an attack on a row, in the words of `_NOTES`."""
    if deciding:
        yield "deciding"
    yield from dict.fromkeys(filter(None, map(small_search, warnings_of(found))))
    if found["seed_known"]:
        yield "seed known"
    if found["status"] != "ok":
        yield status_words(str(found["status"]))
