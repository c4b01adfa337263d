"""Unite plans, manifests, certificates and audits of results folders of one board."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.evaluation.certificates import stored as certificates
from bench.evaluation.certificates.certificate import CertificateRecord
from bench.spec.shard import Shard
from bench.store.audits import read_audits
from bench.store.environment import RunRecord
from bench.store.manifest import Manifest, check_one_board, shards_of
from bench.store.parts import CellRecord
from defenses.utils.errors import UserError
from defenses.utils.json_values import Json, JsonView
from defenses.utils.text import counted

_OF_RUNS = ("runs", "plan", "sum", "notes")  # keys of a manifest that two runs of a board may differ in
_SHOWN = 3  # cells in a message


def row_name(line: JsonView) -> str:
    """Return a cell as text: its row, and its images."""
    last = line["block"] + line["images"] - 1
    threat = f"{line['norm']} {line['eps']}"
    return f"{line['defense']} | {line['attack']} | {line['view']} | {threat} | images {line['block']}-{last}"


def first_of(lines: Sequence[JsonView]) -> str:
    """Return the first cells of some as text, and how many more there are."""
    more = len(lines) - _SHOWN
    return "; ".join(map(row_name, lines[:_SHOWN])) + (f"; and {more} more" if more > 0 else "")


def check_same_board(
    a: Path, b: Path, plans: Mapping[Path, list[CellRecord]], manifests: Mapping[Path, Manifest]
) -> None:
    """Refuse two folders of different boards.

    Args:
        a: a results folder.
        b: another one.
        plans: of both.
        manifests: of both.

    Raises:
        UserError: it says what differs.
    """
    one, other = ({k: v for k, v in manifests[f].items() if k not in _OF_RUNS} for f in (a, b))
    check_one_board(a, b)
    lines_a, lines_b = ({line["key"]: line for line in plans[f]} for f in (a, b))
    only_a = [line for key, line in lines_a.items() if key not in lines_b]
    only_b = [line for key, line in lines_b.items() if key not in lines_a]
    if only_a or only_b:
        told = [f"{counted(len(o), 'cell')} only in {f} ({first_of(o)})" for f, o in ((a, only_a), (b, only_b)) if o]
        raise UserError(f"{a} and {b} are of different boards: {', '.join(told)}; run one board on all machines")
    for key, line in lines_a.items():
        if names := [name for name in sorted({*line, *lines_b[key]}) if line.get(name) != lines_b[key].get(name)]:
            values = f"{line.get(names[0])!r} and {lines_b[key].get(names[0])!r}"
            raise UserError(f'{a} and {b} are of different boards: "{names[0]}" of {row_name(line)} is {values}')
    if list(lines_a) != list(lines_b):
        raise UserError(f"{a} and {b} are of different boards: their cells are in another order")
    if names := [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]:
        raise UserError(f'{a} and {b} are of different boards: "{names[0]}" of their manifest.json differs')


def united_facts(manifests: Iterable[Manifest]) -> Json:
    """Return the facts of a board for a manifest, with the notes of all runs, each once."""
    found = list(manifests)
    notes = list(dict.fromkeys(note for manifest in found for note in manifest.get("notes", ())))
    facts: Json = {key: value for key, value in found[0].items() if key not in _OF_RUNS}
    return facts | ({"notes": notes} if notes else {})


def united_runs(manifests: Iterable[Manifest]) -> list[RunRecord]:
    """Return the runs of all manifests in the order of time, each once: as it ended, where one has not seen its end."""
    runs: dict[str, RunRecord] = {}
    for run in (run for manifest in manifests for run in manifest.get("runs", [])):
        if run["id"] not in runs or ("finished" in run and "finished" not in runs[run["id"]]):
            runs[run["id"]] = run
    return sorted(runs.values(), key=lambda run: (run.get("started", ""), run["id"]))


def absent_shards(runs: Iterable[RunRecord]) -> list[str]:
    """Return the shards that no run has come to the end of, as "3/16", where there are runs of other shards."""
    shards = shards_of(runs)
    numbers = sorted({Shard.parse(shard).of for shard in shards})
    every = [str(Shard(number, of)) for of in numbers for number in range(1, of + 1)]
    return [shard for shard in every if not shards.get(shard)]


def united_certificates(folders: Iterable[Path]) -> dict[str, CertificateRecord]:
    """Return the certificates of all folders by key.

    Two machines round differently, so that the same certificate may have other values; it must have one verdict, and
    the first folder's values stay.

    Raises:
        UserError: a certificate passes in one folder and fails in another, or a file is damaged.
    """
    united: dict[str, CertificateRecord] = {}
    of: dict[str, Path] = {}
    for folder in folders:
        found = certificates.read(folder)
        if not found and (folder / certificates.FILE).exists():
            raise UserError(f"{folder / certificates.FILE} is damaged; run the board again, which writes it anew")
        for key, record in found.items():
            if key in united and united[key].get("passed") != record.get("passed"):
                where = f"in only one of {of[key]} and {folder}"
                raise UserError(f"the certificate {key} passes {where}; purebench certify measures it again")
            united.setdefault(key, record)
            of.setdefault(key, folder)
    return united


def united_audits(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """Return the audits of all folders, each once.

    Raises:
        UserError: a file is damaged, or an audit has other outcomes in two folders.
    """
    united: dict[str, tuple[dict[str, Any], Path]] = {}
    for folder in folders:
        for audit in read_audits(folder):
            name = json.dumps([audit.get(key) for key in ("fingerprint", "dataset", "norm", "eps")], sort_keys=True)
            earlier, where = united.setdefault(name, (audit, folder))
            if _outcomes(earlier) != _outcomes(audit):
                which = f"{audit.get('label')} at {audit.get('norm')} {audit.get('eps')}"
                raise UserError(
                    f"the audit of {which} has other outcomes in {where} than in {folder}; remove one of them from its "
                    "folder's audit/audit.json, or audit it again in both"
                )
    return [audit for audit, _ in united.values()]


def _outcomes(audit: JsonView) -> list[object]:
    """Return the settings of an audit and the status of each check, without measured values."""
    findings = [(f.get("check"), f.get("status")) for f in audit.get("findings", ())]
    return [audit.get("budget"), audit.get("images"), audit.get("seed"), bool(audit.get("outdated")), findings]
