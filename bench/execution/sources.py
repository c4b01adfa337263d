"""Code and files of the user that a cell depends on: listed with its result, and compared later. Without torch.

The line of a cell has an entry for each plug-in of the cell:
    name: as in the key, without the folder.
    code: hashes of the files that its code imports from its folder, by path in it; they are in the key too.
    modules: hashes of further files that were imported, without comments and docstrings.
    files: [SHA-256, size, times of change] of the files that its code read; None: it was missing. A folder that it
        listed ends with "/", an environment variable begins with "$", and a question whether a file is there
        with "?": [SHA-256, length, hash].
    problem: reason why this is not all that it depends on; "": it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.attacks.registry import user_code
from bench.evaluation.certificates.certificate import CertificateRecord
from bench.spec.cell import Cell, DefenseRef
from bench.store.parts import CellRecord
from defenses.data.sources.corrupted import parts_of as corrupted_parts
from defenses.utils.file_reads import absolute, is_current, known_as, listing, name_of
from defenses.utils.json_values import Json, JsonView
from defenses.utils.names import is_plugin, portable
from defenses.utils.namespaces import imported_files
from defenses.utils.parameters import decode
from defenses.utils.plugin_code import PluginCode, code_parts, source_of
from defenses.utils.reads import is_file, stamp_of
from defenses.utils.source_code import whole_hash
from defenses.zoo.composition import plugins_of

if TYPE_CHECKING:
    from defenses.utils.identity import Provenance

_OTHER_DATA = ("hf", "folder", "corrupted")
Entry = Json


class Sources:
    """Today's code and files of cells, each looked at once."""

    def __init__(self) -> None:
        self._plugins: dict[tuple[object, ...], list[tuple[str, PluginCode]]] = {}
        self._code: dict[str, dict[str, str]] = {}
        self._same: dict[tuple[str, str], bool] = {}
        self._here: dict[str, list[object] | None] = {}

    def of(self, cell: Cell) -> list[Entry]:
        """Return the entries of a cell that was run in this process."""
        models = (cell.defense, *([cell.surrogate] if cell.surrogate else []))
        entries = []
        for name, source in self.plugins(cell):
            entry = _entry(name, source, self.code(name))
            unidentified = [m.unidentified for m in models if m.unidentified and name in _of_defense(m)]
            entries.append(entry | {"problem": (*unidentified, entry["problem"])[0]})
        return entries

    def files(self, cell: Cell) -> list[Path]:
        """Return the files of the user's own code of a cell, with those that it has read in this process."""
        files = []
        for entry, (_, source) in zip(self.of(cell), self.plugins(cell), strict=True):
            if not source.private:  # installed, as on the nodes of a cluster
                continue
            named = [absolute(path, _folder(source)).lstrip("?") for path in {**entry["modules"], **entry["files"]}]
            code = [path for name in entry["code"] for path in (Path(_folder(source), name), Path.cwd() / name)]
            listed = [inside for path in named if path.endswith("/") for inside in Path(path).glob("*")]
            files += [path for path in (*code, *map(Path, named), *listed) if path.is_file()]
        return files

    def move_here(self, cell: Cell, record: CellRecord | CertificateRecord) -> None:
        """Give a record of another machine this one's variables, names in folders, and answers whether files are there.

        Those of a node of a cluster are its own, and later runs compare with those of this machine.

        Args:
            cell: the cell of the record.
            record: the line of its result, or the certificate of its defense.
        """
        for _, source, entry in self._pairs(cell, record):
            for path in entry["files"]:
                full = absolute(path, _folder(source))
                if is_file(full):
                    continue
                if full not in self._here:  # what it is when a run begins counts
                    self._here[full] = known_as(full, stamp_of(full))
                entry["files"][path] = self._here[full]

    def plugins(self, cell: Cell) -> list[tuple[str, PluginCode]]:
        """Return the (name, source) of the user's code of a cell, in an order that depends on the cell alone."""
        key = id(cell.defense), id(cell.surrogate), cell.attack.name, cell.data.name
        if key not in self._plugins:
            names = [*_of_defense(cell.defense), *(_of_defense(cell.surrogate) if cell.surrogate else ())]
            self._plugins[key] = _found([*names, user_code(cell.attack.name), _of_data(cell.data.name)])
        return self._plugins[key]

    def code(self, name: str) -> dict[str, str]:
        """Return the hashes of a plug-in's code, by path."""
        if name not in self._code:
            self._code[name] = code_parts(name)
        return self._code[name]

    def outdated(self, cell: Cell, line: CellRecord) -> str:
        """Return the name of a file that has changed since a cell was run; "" if its result still holds.

        Args:
            cell: the cell.
            line: its stored line.
        """
        return self._outdated(self._pairs(cell, line))

    def of_defense(self, defense: DefenseRef | Provenance) -> list[Entry]:
        """Return the entries of a defense whose results are in no cells."""
        return [_entry(name, source, self.code(name)) for name, source in _found(_of_defense(defense))]

    def earlier_file_of(self, defense: DefenseRef | Provenance, line: JsonView) -> str:
        """Return the name of a file that has changed since a line with entries of `of_defense`; "" without one."""
        pairs = zip(_found(_of_defense(defense)), line.get("sources", ()), strict=False)
        return self._outdated((name, source, entry) for (name, source), entry in pairs)

    def reason_against(self, defense: DefenseRef | Provenance, line: JsonView) -> str:
        """Return why a line with entries of `of_defense` no longer holds, as "an earlier mine.py"; "" if it does."""
        outdated = self.earlier_file_of(defense, line)
        return f"an earlier {outdated}" if outdated else problem_of(line)

    def certificate_holds(self, cell: Cell, certificate: CertificateRecord) -> bool:
        """Return True if a stored certificate is of today's code and files of the defense of a cell."""
        return not self.reason_against(cell.defense, certificate)

    def _outdated(self, entries: Iterable[tuple[str, PluginCode, Entry]]) -> str:
        for name, source, entry in entries:
            changed = [
                p for p, h in entry["modules"].items() if p not in self.code(name) and not self._has(source, p, h)
            ]
            changed += [path for path, known in entry["files"].items() if not self._has(source, path, known)]
            if changed:
                return name_of(changed[0])
        return ""

    def earlier_file(self, cell: Cell, line: CellRecord) -> str:
        """Return the name of a file that was another when a result of another key was made, or of its images.

        Args:
            cell: the cell, of today's code.
            line: a line of the same cell but for the user's code and data, see `without_code`.
        """
        pairs = self._pairs(cell, line)
        if changed := next(filter(None, (self._changed(*pair) for pair in pairs)), ""):
            return changed
        if line["identity"]["data"][2] != cell.data.revision:
            return f"revision of {portable(cell.data.name)}"
        return next((source.file.name for _, source in self.plugins(cell)), "file")

    def reason_from_here(self, line: CellRecord) -> tuple[str, bool]:
        """Return why a stored line may not be of the code below the current folder, and True if it surely is not.

        Args:
            line: of any cell; its plug-ins are named without their folders. The reason of a line that holds is "".
        """
        for entry in line.get("sources", ()):
            source = source_of(entry["name"].rpartition(":")[0])
            if source is None or not source.file.is_file():
                remedy = "which is not in the current folder; go to its folder, or name the board"
                return f"{entry['name']}, {remedy}", False
            reason = self._changed(entry["name"], source, entry) or self._outdated([(entry["name"], source, entry)])
            if reason:
                return f"an earlier {reason}", True
        return "", False

    def _changed(self, name: str, source: PluginCode, entry: Entry) -> str:
        """Return the name of a file whose code or content is not that of an entry; "" without one."""
        then, now = entry["code"], self.code(name)
        changed = [path for path in {**then, **now} if then.get(path) != now.get(path)]
        changed += [path for path, known in entry["files"].items() if not self._has(source, path, known)]
        return name_of(changed[0]) if changed else ""

    def _pairs(self, cell: Cell, line: JsonView) -> Iterator[tuple[str, PluginCode, Entry]]:
        for (name, source), entry in zip(self.plugins(cell), line.get("sources", ()), strict=False):
            yield name, source, entry

    def _has(self, source: PluginCode, path: str, known: Any) -> bool:
        """Return True if a file is still what it was: a module by its code, another file by its content."""
        full = absolute(path, _folder(source))
        key = full, json.dumps(known)
        if key not in self._same:
            if isinstance(known, str):
                self._same[key] = os.path.isfile(full) and whole_hash(Path(full).read_bytes()) == known
            else:
                self._same[key] = is_current(full, known)
        return self._same[key]


def _entry(name: str, source: PluginCode, code: Mapping[str, str]) -> Entry:
    folder = _folder(source)
    file = Path(source.place, source.file.relative_to(source.root))
    imported = imported_files(source.place, file) if source.private else {}
    files, problem = listing(source.place, folder, imported)
    modules: dict[str, str] = {}
    for _, (file, sha) in sorted(imported.items()):
        content = file.read_bytes() if file.is_file() else b""
        if hashlib.sha256(content).hexdigest() != sha:
            problem = problem or f"{file.name} changed during the run"
        modules[os.path.relpath(file, folder)] = whole_hash(content)
    further = {path: value for path, value in modules.items() if path not in code}
    return {"name": portable(name), "code": dict(code), "modules": further, "files": files, "problem": problem}


def _folder(source: PluginCode) -> str:
    return source.place if source.private else os.path.dirname(source.place)


def _found(names: Iterable[str]) -> list[tuple[str, PluginCode]]:
    """Return the (name, source) of the plug-ins of users among some names, each once."""
    found = [(name, source_of(name.rpartition(":")[0])) for name in dict.fromkeys(names) if is_plugin(name)]
    return [(name, source) for name, source in found if source is not None and not source.ours]


def _of_defense(defense: DefenseRef | Provenance) -> list[str]:
    """Return the plug-ins of a defense: itself and the parts that its parameters name."""
    return plugins_of(defense.name, decode(defense.params))


def _of_data(name: str) -> str:
    """Return the function of a data set; "" if it is of another kind."""
    corrupted = corrupted_parts(name)
    clean = corrupted[0] if corrupted else name
    return "" if clean.partition(":")[0] in _OTHER_DATA else clean


def is_own_data(name: str) -> bool:
    """Return True if a data set is no published one: a folder, a file, a function, or images that may change."""
    return ":" in name or name.endswith(".npz")


def problem_of(line: JsonView) -> str:
    """Return the reason why a stored result may be of another model or attack than its key says; "" without one."""
    return next((str(entry["problem"]) for entry in line.get("sources", ()) if entry["problem"]), "")


def without_code(identity: JsonView) -> str:
    """Return the identity of a cell as text, without the hashes of the user's code and data and of what these make."""
    about = dict(identity)
    for key in about.keys() & {"defense", "source"}:
        about[key] = _without_hashes(about[key])
    attack, params, version = about["attack"]
    about["attack"] = [attack, params, re.sub(r"^(\S+\.py) [0-9a-f]*$", r"\1", version)]
    name, split, revision, *rest = about["data"]
    about["data"] = [name, split, None if is_own_data(name) else revision, *rest]
    return json.dumps(about, sort_keys=True)


def _without_hashes(fingerprint: JsonView) -> dict[str, object]:
    """Return a fingerprint without those of the user's code in it."""
    hashes = ("code", "state", "nonce") if fingerprint.get("code") else ()
    rest = {key: value for key, value in fingerprint.items() if key not in ("around", *hashes)}
    around = [_without_hashes(part) for part in fingerprint.get("around", ())]
    return rest | ({"around": around} if around else {})
