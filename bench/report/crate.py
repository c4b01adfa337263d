"""Describe runs and their files as an RO-Crate 1.1 with the profile Process Run Crate 0.5, as JSON-LD.

https://w3id.org/ro/wfrun/process/0.5: a root data set, an action for each run, the software that ran, and files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bench.report.crate_files import Stored, stored_files, written_by
from bench.spec.submission import CRATE
from bench.store.manifest import read_manifest, read_runs
from defenses.utils.names import portable
from defenses.utils.text import clean, file_name

FILE = CRATE
_CONTEXT = ["https://w3id.org/ro/crate/1.1/context", "https://w3id.org/ro/terms/workflow-run/context"]
_CRATE, _PROFILE = "https://w3id.org/ro/crate/1.1", "https://w3id.org/ro/wfrun/process/0.5"
_MIT = "https://spdx.org/licenses/MIT"
_NO_LICENCE = "The results folders state no licence; purebench itself is under the MIT licence."
_INPUTS = ("plan.jsonl", "plan.json")
Entity = dict[str, Any]


@dataclass(frozen=True)
class Described:
    """A results folder within a crate, or beside it.

    Args:
        folder: the folder.
        name: by which people know it.
        inside: its path from the crate, ending with "/", or "" for the crate's own folder; None: outside, so that its
            files are told by name and checksum and are no files of the crate.
    """

    folder: Path
    name: str
    inside: str | None


def crate(folders: Sequence[Described], files: Mapping[str, bytes], *, name: str, about: str) -> str:
    """Return the metadata of a crate, the file `FILE`.

    Args:
        folders: results folders with their runs.
        files: further files of the crate by path.
        name: of the crate.
        about: what it is.
    """
    entities: dict[str, Entity] = {}
    for described in folders:
        for entity in _of_folder(described):
            entities.setdefault(entity["@id"], entity)
    for path, content in files.items():
        stored = Stored(path, len(content), hashlib.sha256(content).hexdigest())
        entities[quote(path)] = _file(stored, quote(path))
    parts = [e["@id"] for e in entities.values() if e["@type"] in ("File", "Dataset") and not e["@id"].startswith("#")]
    nested = {of["@id"] for e in entities.values() if e["@type"] == "Dataset" for of in e.get("hasPart", ())}
    actions = [e for e in entities.values() if e["@type"] == "CreateAction"]
    root: Entity = {
        "@id": "./",
        "@type": "Dataset",
        "name": clean(name),
        "description": clean(about),
        "license": _NO_LICENCE,
        "conformsTo": _to(_PROFILE),
        "mentions": [_to(action["@id"]) for action in actions],
        "hasPart": [_to(part) for part in parts if part not in nested],
    }
    ends = [str(action.get("endTime") or action.get("startTime") or "") for action in actions]
    root |= {"datePublished": max(ends)[:10]} if any(ends) else {}
    head = [
        {"@id": FILE, "@type": "CreativeWork", "conformsTo": _to(_CRATE), "about": _to("./")},
        root,
        {"@id": _PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"},
        {"@id": _MIT, "@type": "CreativeWork", "name": "MIT licence"},
    ]
    return json.dumps({"@context": _CONTEXT, "@graph": [*head, *entities.values()]}, indent=1) + "\n"


def _to(identifier: str) -> Entity:
    return {"@id": identifier}


def _of_folder(described: Described) -> Iterator[Entity]:
    """Yield the entities of a results folder: files, parts, inputs, software and runs."""
    folder, runs = described.folder, read_runs(described.folder)
    files = stored_files(folder)
    for stored in files:
        yield _file(stored, _identifier(described, stored.path))
    for part in dict.fromkeys(stored.part for stored in files if stored.part):
        inside = [_to(_identifier(described, stored.path)) for stored in files if stored.part == part]
        kind = "CreativeWork" if described.inside is None else "Dataset"
        yield {"@id": _identifier(described, f"{part}/"), "@type": kind, "name": part, "hasPart": inside}
    manifest = read_manifest(folder)
    inputs = list(_inputs(manifest))
    yield from inputs
    used = [_to(entity["@id"]) for entity in inputs]
    used += [_to(_identifier(described, stored.path)) for stored in files if stored.path in _INPUTS]
    made = written_by(folder, runs, files)
    for run in runs:
        software = _software(run)
        yield software
        results = [_to(_identifier(described, path)) for path in made.get(str(run["id"]), ())]
        yield _action(described, run, software["@id"], used, results)


def _identifier(described: Described, path: str) -> str:
    """Return the identifier of a file or part: its path in the crate, or a name for one that is outside."""
    if described.inside is None:
        return f"#{quote(f'{described.name}/{path}')}"
    return quote(f"{described.inside}{path}")


def _file(stored: Stored, identifier: str) -> Entity:
    """Return the entity of a file; one outside the crate is a work with a checksum."""
    return {
        "@id": identifier,
        "@type": "CreativeWork" if identifier.startswith("#") else "File",
        "name": stored.path,
        "contentSize": str(stored.size),
        "sha256": stored.sha256,
        **({"encodingFormat": stored.form} if stored.form else {}),
    }


def _inputs(manifest: Mapping[str, Any]) -> Iterator[Entity]:
    """Yield the board, the data and the weights that runs took, as far as the manifest knows them."""
    if board := manifest.get("board"):
        yield {"@id": f"#board-{file_name(str(board))}", "@type": "CreativeWork", "name": f"board {clean(str(board))}"}
    if dataset := manifest.get("dataset"):
        text = " ".join(str(manifest[k]) for k in ("split", "indices") if manifest.get(k))
        name = f"{portable(str(dataset))} {text}".strip()
        yield {"@id": f"#data-{file_name(name)}", "@type": "CreativeWork", "name": f"data {clean(name)}"}
    fingerprints = manifest.get("defenses")
    for fingerprint in fingerprints.values() if isinstance(fingerprints, dict) else ():
        for name, sha in (fingerprint.get("weights") or {}).items():
            about = {"name": f"weights {clean(portable(str(name)))}", "sha256": str(sha)}
            yield {"@id": f"#weights-{file_name(str(sha))[:64]}", "@type": "CreativeWork", **about}


def _software(run: Mapping[str, Any]) -> Entity:
    """Return purebench as a run used it."""
    git, versions = run.get("git") or {}, run.get("versions") or {}
    version, commit = str(versions.get("purebench") or "unknown"), str(git.get("commit") or "")
    dirty = " with changes beside it" if git.get("dirty") else ""
    needs = [f"{name} {number}" for name, number in versions.items() if name != "purebench"]
    key = hashlib.sha256(json.dumps([version, commit, dirty, needs]).encode()).hexdigest()[:12]
    entity: Entity = {"@id": f"#purebench-{key}", "@type": "SoftwareApplication", "name": "purebench"}
    entity |= {"softwareVersion": version, "license": _to(_MIT)}
    entity |= {"identifier": f"git commit {commit}{dirty}"} if commit else {}
    return entity | ({"softwareRequirements": ", ".join(needs)} if needs else {})


def _action(
    described: Described, run: Mapping[str, Any], software: str, used: Iterable[Entity], results: Iterable[Entity]
) -> Entity:
    """Return the action of a run."""
    command = clean(str(run.get("command") or "(unknown command)"))
    ended = bool(run.get("finished"))
    entity: Entity = {
        "@id": f"#run-{file_name(described.name)}-{file_name(str(run['id']))}",
        "@type": "CreateAction",
        "name": f"Run of {clean(described.name)}",
        "description": command,
        "instrument": _to(software),
        "object": list(used),
        "result": list(results),
        "actionStatus": f"http://schema.org/{'Completed' if ended else 'Failed'}ActionStatus",
    }
    for name, key in (("startTime", "started"), ("endTime", "finished")):
        entity |= {name: str(run[key])} if run.get(key) else {}
    return entity
