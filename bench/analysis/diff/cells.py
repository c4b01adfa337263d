"""Pair the cells of two runs, and say how each pair differs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from bench.analysis.diff.side import RowName, RunSide, row_name
from bench.analysis.verdict_agreement import compare_images
from bench.store.bits import other_bits
from bench.store.parts import CellRecord

KINDS = {  # of cells: meaning
    "same": "the same bits",
    "agree": "other bits, the same verdicts",
    "ties": "other verdicts in ties alone",
    "differ": "other verdicts",
    "other_key": "another key",
    "only_old": "only in the old run",
    "only_new": "only in the new run",
    "status": "finished in one run and failed in the other",
}
DIFFERENT = ("differ", "other_key", "only_old", "only_new", "status")  # kinds beyond ties


@dataclass
class RowCells:
    """The cells of a row of a table in two runs.

    Args:
        count: number of cells by the keys of `KINDS`.
        differing: images with another verdict in a draw, or another count.
        beyond: of these, those that differ beyond ties.
        old: keys of the old run's finished cells.
        new: keys of the new run's finished cells.
        pairs: (old key, new key) of cells of another key.
    """

    count: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    differing: set[int] = field(default_factory=set)
    beyond: set[int] = field(default_factory=set)
    old: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    pairs: list[tuple[str, str]] = field(default_factory=list)


def paired_cells(old: RunSide, new: RunSide) -> dict[RowName, RowCells]:
    """Return the cells of each row of two runs: the old run's rows in table order, then those of the new one alone."""
    changed = _other_bits(old, new)
    rows: dict[RowName, RowCells] = {}
    by_row = {row_name(line): None for side in (old, new) for line in side.lines.values()}
    lines = [_by_row(side) for side in (old, new)]
    for name in by_row:
        row = rows[name] = RowCells()
        before, after = (of.get(name, {}) for of in lines)
        row.old, row.new = (_finished(of.values()) for of in (before, after))
        for key in before.keys() & after.keys():
            kind = _kind(before[key], after[key])
            if kind == "same" and key in changed:
                kind = _compare(row, old, new, [key], [key])
            if kind:
                row.count[kind] += 1
        for kind, of, other in (("only_old", before, new), ("only_new", after, old)):
            failed = [key for key, line in of.items() if line["status"] not in ("ok", "missing")]
            row.count[kind] += sum(key not in other.lines for key in failed)
        _pair_other_keys(row, old, new)
    return rows


def _by_row(side: RunSide) -> dict[RowName, dict[str, CellRecord]]:
    rows: dict[RowName, dict[str, CellRecord]] = {}
    for key, line in side.lines.items():
        rows.setdefault(row_name(line), {})[key] = line
    return rows


def _finished(lines: Iterable[CellRecord]) -> list[str]:
    return [line["key"] for line in lines if line["status"] == "ok"]


def _kind(old: CellRecord, new: CellRecord) -> str:
    """Return how the status of a cell differs, a key of `KINDS`; "" if it was run in neither."""
    if old["status"] == new["status"]:
        return "" if old["status"] == "missing" else "same"
    if "missing" in (old["status"], new["status"]):
        return "only_new" if old["status"] == "missing" else "only_old"
    return "status"


def _other_bits(old: RunSide, new: RunSide) -> set[str]:
    """Return the cells that both runs have finished, with other bits."""
    pairs: dict[tuple[Path, Path], list[str]] = {}
    for key in old.lines.keys() & new.lines.keys():
        if {old.lines[key]["status"], new.lines[key]["status"]} == {"ok"}:
            pairs.setdefault((old.part(key), new.part(key)), []).append(key)
    return {key for (a, b), keys in pairs.items() for key in other_bits(a, b, keys)}


def _compare(row: RowCells, old: RunSide, new: RunSide, before: list[str], after: list[str]) -> str:
    """Compare the images that cells of both runs have, add those that differ to a row, and return the kind."""
    records, records_after = old.records(before), new.records(after)
    common = set(records["index"]) & set(records_after["index"])
    records, records_after = (of[of["index"].isin(common)] for of in (records, records_after))
    if not common:
        return "agree"
    agreement, differing, beyond = compare_images(records, records_after, old.draws(before), new.draws(after))
    row.differing |= differing
    row.beyond |= beyond
    return agreement.kind


def _pair_other_keys(row: RowCells, old: RunSide, new: RunSide) -> None:
    """Pair the finished cells of a row that only one run has, by their images."""
    before, after = ([k for k in keys if k not in other.lines] for keys, other in ((row.old, new), (row.new, old)))
    images = {key: set(side.records([key])["index"]) for side, keys in ((old, before), (new, after)) for key in keys}
    for key in after:
        partner = max(before, key=lambda k: len(images[k] & images[key]), default=None)
        if partner is None or not images[partner] & images[key]:
            row.count["only_new"] += 1
        else:
            row.pairs.append((partner, key))
            row.count["other_key"] += 1
    taken = {partner for partner, _ in row.pairs}
    row.count["only_old"] += sum(key not in taken for key in before)
    if row.pairs:
        _compare(row, old, new, [k for k in before if k in taken], [key for _, key in row.pairs])
