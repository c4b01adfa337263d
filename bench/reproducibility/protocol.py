"""The sections on what was measured: protocol and defenses."""

from __future__ import annotations

from bench.report.attack_warnings import listed
from bench.report.document.model import Block, Bullets, Facts, Grid, Section, Text
from bench.report.row_text import NAMES
from bench.report.table import Table
from bench.reproducibility.subject import Subject
from bench.site.board import board_lines
from bench.site.columns import parts
from bench.site.glossary import GLOSSARY
from bench.site.model import SiteBoard
from bench.spec.view_words import view_words
from defenses.utils.names import portable

_TERMS = ("worst-case", "rank-range", "interval", "rob", "gradients", "evaluations")
_SHA = 12  # letters of a checksum that tell files apart


def protocol(subject: Subject) -> Section:
    """Return what was run on which images, and what the numbers mean."""
    blocks: list[Block] = []
    for board in subject.boards:
        several = f"{board.threat}: " if len(subject.boards) > 1 else ""
        facts = [(f"{several}{name}", text) for name, text in board_lines(board) if name != "rows"]
        blocks += [Facts((*facts, *_recorded(subject))), Grid(_attacks(board))]
    if not subject.boards:
        names = ("dataset", "split", "indices", "draws", "seed", "budget")
        known = [(name, portable(str(subject.manifest[name]))) for name in names if subject.manifest.get(name)]
        blocks.append(Facts((("kind", subject.source.kind), *known)))
    if subject.boards:
        terms = [f"{term}: {text}" for anchor, term, text in GLOSSARY if anchor in _TERMS]
        blocks += [Text("What the numbers mean:"), Bullets(tuple(terms))]
    return Section("protocol", "Protocol", tuple(blocks))


def _recorded(subject: Subject) -> list[tuple[str, str]]:
    """Return what the cells have in common."""
    data = {str(line["identity"]["data"][2]) for line in subject.lines if (line.get("identity") or {}).get("data")}
    seeds = {str(line["seed"]) for line in subject.lines if line.get("seed") is not None}
    known = {str(line.get("knowledge")) for line in subject.lines if line.get("knowledge")}
    facts = (("revision of the data", data), ("seed", seeds), ("knowledge of the attacker", known))
    return [(name, ", ".join(sorted(values))) for name, values in facts if values]


def _attacks(board: SiteBoard) -> Table:
    """Return the attacks of a board with their parameters in full."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for row in board.rows:
        for (attack, view), recipe in row.recipes.items():
            found.setdefault((NAMES.get(attack, attack), view_words(view), recipe.text), []).append(row.label)
    rows = [(*key, str(len(labels)), listed(labels)) for key, labels in found.items()]
    columns = ("attack", "view", "name, library and parameters", "defenses", "on")
    return Table(f"Attacks, {board.threat}", columns, tuple(rows), left=3, tail=1)


def defenses(subject: Subject) -> Section:
    """Return the defenses with their parts, papers, licences and weights."""
    if not subject.boards:
        return Section("defenses", "Defenses", (_named(subject),))
    rows: dict[str, tuple[str, ...]] = {}
    links: dict[tuple[int, int], str] = {}
    for row in subject.rows:
        if row.label in rows:
            continue
        weights = [f"{name} {sha[:_SHA]}" for name, sha in row.about.weights]
        paper = str(row.values["paper"])
        if paper and row.values["url"]:
            links[len(rows), 2] = str(row.values["url"])
        kind = f"randomised, {row.values['draws']} draws" if row.values["stochastic"] else "deterministic"
        rows[row.label] = (row.label, parts(row), paper, kind, row.about.licence, ", ".join(weights))
    columns = ("defense", "parts", "paper", "kind", "licence", "weights (sha256)")
    table = Table("Parts, papers and weights", columns, tuple(rows.values()), left=6)
    return Section("defenses", "Defenses", (Grid(table, links),))


def _named(subject: Subject) -> Block:
    """Return the defenses that a manifest names."""
    known = subject.manifest.get("defenses")
    lines = []
    for title, fingerprint in known.items() if isinstance(known, dict) else ():
        weights = [f"{name} {str(sha)[:_SHA]}" for name, sha in (fingerprint.get("weights") or {}).items()]
        lines.append((str(title), portable(str(fingerprint.get("name", ""))), ", ".join(weights)))
    if not lines:
        return Text("The folder names no defense by its fingerprint.")
    return Grid(Table("Names and weights", ("label", "name", "weights (sha256)"), tuple(lines), left=3))
