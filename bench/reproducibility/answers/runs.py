"""Answers from the runs, the files and the costs of a results folder."""

from __future__ import annotations

from typing import Any

from bench.report.attack_warnings import listed
from bench.report.crate_files import stored_files
from bench.reproducibility.answers.answer import Answer, Answerer, absent, decided, hand, of_rows
from bench.reproducibility.subject import Subject
from bench.site.text import missing
from bench.store.manifest import resumed_anyway
from bench.store.parts import ADVERSARIAL, part_folders
from defenses.utils.text import counted, human_time

_UNKNOWN = "no run is recorded"


def typed(command: str) -> bool:
    """Return True for a command of a shell, and not a call from Python."""
    return bool(command) and not command.startswith("(")


def commands(subject: Subject) -> Answer:
    """Return if each run has its command and commit."""
    runs = subject.source.runs
    if not runs:
        return decided(False, _UNKNOWN, "environment")
    whole = [run for run in runs if typed(run.command) and run.commit]
    text = f"command and commit of {len(whole)} of {counted(len(runs), 'run')}"
    return decided(len(whole) == len(runs) and not subject.lost, _with_lost(text, subject), "environment")


def _with_lost(text: str, subject: Subject) -> str:
    return "; ".join(filter(None, (text, subject.lost)))


def release(subject: Subject) -> Answer:
    """Return what identifies code and weights, for a reader who checks that they are public; no where nothing does."""
    runs = subject.source.runs
    clean = [run for run in runs if run.commit and not run.dirty]
    text = f"a clean commit of {len(clean)} of {counted(len(runs), 'run')}, {_weights(subject)}"
    if not clean or not _hashes(subject):
        return decided(False, f"{text}; what is not identified cannot be looked up", "environment")
    return hand(f"check that they are public: {text}", "environment")


def _weights(subject: Subject) -> str:
    return f"sha256 of {counted(len(_hashes(subject)), 'weights file')}"


def _hashes(subject: Subject) -> set[str]:
    return {str(sha) for f in _fingerprints(subject) for sha in (f.get("weights") or {}).values()}


def _fingerprints(subject: Subject) -> list[dict[str, Any]]:
    """Return the fingerprints of the defenses of the folder."""
    found = subject.manifest.get("defenses")
    return [f for f in found.values() if isinstance(f, dict)] if isinstance(found, dict) else []


def versions(subject: Subject) -> Answer:
    """Return if each run has the versions of its packages."""
    runs = subject.source.runs
    if not runs:
        return decided(False, _UNKNOWN, "environment")
    known = [run for run in runs if run.versions]
    text = f"versions of packages of {len(known)} of {counted(len(runs), 'run')}"
    return decided(len(known) == len(runs) and not subject.lost, _with_lost(text, subject), "environment")


def protocol(subject: Subject) -> Answer:
    """Return that the procedure is told."""
    return decided(True, "the protocol of this report", "protocol")


def weights(subject: Subject) -> Answer:
    """Return if the defenses are known by fingerprints, of which checksums of weights are a part."""
    found = _fingerprints(subject)
    if not found:
        return absent("no model is named here")
    doubtful = sorted(resumed_anyway(subject.manifest))
    text = f"fingerprints of {counted(len(found), 'model')}, {_weights(subject)}"
    return decided(not doubtful, f"{text}; in doubt: {listed(doubtful)}" if doubtful else text, "defenses")


def seeds(subject: Subject) -> Answer:
    """Return if the seeds of attacks are recorded."""
    known = {str(line["seed"]) for line in subject.lines if line.get("seed") is not None}
    if known:
        return decided(True, f"seed {', '.join(sorted(known))} in {counted(len(subject.lines), 'cell')}", "protocol")
    seed = subject.manifest.get("seed")
    return decided(seed is not None, "no seed is recorded" if seed is None else f"seed {seed}", "protocol")


def outputs(subject: Subject) -> Answer:
    """Return if the adversarial images are stored."""
    if not subject.boards:
        return decided(False, "no images are stored; the same command computes all again", "repeat")
    parts = part_folders(subject.folder / "parts")
    stored = [part for part in parts if (part / ADVERSARIAL).is_file()]
    text = f"adversarial images in {len(stored)} of {counted(len(parts), 'part')}, for purebench verify"
    return decided(bool(parts) and len(stored) == len(parts), text, "repeat")


def data(subject: Subject) -> Answer:
    """Return if data set and images are identified."""
    known = {line["identity"]["data"][2] for line in subject.lines if (line.get("identity") or {}).get("data")}
    if known:
        return decided(
            True, f"revision {', '.join(sorted(map(str, known)))}; purebench show says where from", "protocol"
        )
    name = subject.manifest.get("dataset")
    return decided(bool(name), f"{name}; its revision is not recorded" if name else "no data set is named", "protocol")


def licences(subject: Subject) -> Answer:
    """Return if the licences of the defenses are known."""
    return of_rows(
        subject.rows, lambda row: bool(row.about.licence), "licence of the implementation", "defenses",
        none="no row of a board is here",
    )  # fmt: skip


def split(subject: Subject) -> Answer:
    """Return the split, images and draws."""
    if not subject.boards:
        known = [f"{name} {subject.manifest[name]}" for name in ("split", "indices") if subject.manifest.get(name)]
        return decided(bool(known), ", ".join(known) or "not recorded", "protocol")
    texts = [f"{b.setting['split']}, {b.images} images ({b.setting['indices']})" for b in subject.boards]
    return decided(True, "; ".join(dict.fromkeys(texts)), "protocol")


def parameters(subject: Subject) -> Answer:
    """Return if the parameters of all attacks that ran are recorded."""
    rows = [row for row in subject.attacked if row.recipes]
    return of_rows(
        rows,
        lambda row: all(recipe.name for recipe in row.recipes.values()),
        "name, library, version and parameters of each attack",
        "protocol",
    )


def intervals(subject: Subject) -> Answer:
    """Return if the means have intervals."""
    if not subject.rows:
        return decided(bool(subject.tracks), "the tables have intervals where they are samples", "results")
    return of_rows(
        [row for row in subject.rows if row.values["worst_mean"] is not None],
        lambda row: row.values["worst_low"] is not None,
        "a 95 % interval of the worst case",
        "results",
    )


def variability(subject: Subject) -> Answer:
    """Return which variability the intervals cover."""
    if not subject.rows:
        return decided(bool(subject.tracks), "images; not the training", "results")
    return decided(True, "the choice of images; draws are averaged, trainings only where there are several", "protocol")


def interval_method(subject: Subject) -> Answer:
    """Return how the intervals are computed."""
    text = "Wilson over images; ranks by paired differences with Bonferroni's correction"
    return decided(True, text if subject.rows else "said below the tables", "protocol" if subject.rows else "results")


def trainings(subject: Subject) -> Answer:
    """Return if several trainings of each model are measured."""
    return of_rows(
        subject.rows, lambda row: int(row.values["n_seeds"]) > 1, "several trainings", "results",
        none="no row of a board is here",
    )  # fmt: skip


def hardware(subject: Subject) -> Answer:
    """Return if each run has its machine."""
    runs = subject.source.runs
    known = [run for run in runs if run.machine]
    text = f"processor, system and device of {len(known)} of {counted(len(runs), 'run')}" if runs else _UNKNOWN
    return decided(bool(runs) and len(known) == len(runs), text, "environment")


def times(subject: Subject) -> Answer:
    """Return if each run has its time."""
    runs = subject.source.runs
    known = [run.seconds for run in runs if not missing(run.seconds)]
    text = f"{human_time(sum(known))} in {len(known)} of {counted(len(runs), 'run')}" if known else _UNKNOWN
    return decided(bool(runs) and len(known) == len(runs), text, "cost")


def memory(subject: Subject) -> Answer:
    """Return the size of the folder; memory is not recorded."""
    size = sum(stored.size for stored in stored_files(subject.folder))
    return decided(False, f"{size / 1e6:.1f} MB of files; memory is not recorded", "cost")


def total(subject: Subject) -> Answer:
    """Return that runs of other folders are not in the total."""
    return decided(False, "the runs of this folder alone; those that were thrown away are not recorded", "cost")


FIELDS: dict[str, Answerer] = {
    function.__name__: function
    for function in (
        *(commands, release, versions, protocol, weights, seeds, outputs, data, licences, split, parameters),
        *(intervals, variability, interval_method, trainings, hardware, times, memory, total),
    )
}
