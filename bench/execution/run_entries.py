"""The entries of a run in the manifest: one for each kind of machine on which its cells run."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping

from bench.store.environment import RunRecord
from bench.store.folder import Store
from bench.store.manifest import update_manifest


class RunEntries:
    """The entries of a run, which `write` writes to the manifest; further ones, once it has.

    Args:
        store: the results folder.
        facts: of the board.
        entry: of this machine.
    """

    def __init__(self, store: Store, facts: Mapping[str, object], entry: RunRecord):
        self._store, self._facts, self._entries, self._written = store, facts, [entry], False

    @property
    def run(self) -> str:
        """Return the id of the run."""
        return self._entries[0]["id"]

    def of(self, machine: RunRecord) -> str:
        """Return the id of the entry of a machine: another kind of processor, device or library has its own."""
        for entry in self._entries:
            if (entry["versions"], entry["hardware"]) == (machine["versions"], machine["hardware"]):
                return entry["id"]
        entry = self._entries[0].copy()
        entry["id"] = uuid.uuid4().hex[:12]
        entry["versions"], entry["git"], entry["hardware"] = machine["versions"], machine["git"], machine["hardware"]
        self._entries.append(entry)
        if self._written:
            update_manifest(self._store, self._facts, entry)
        return entry["id"]

    def write(self, probabilities: Mapping[str, str]) -> None:
        """Write the entries.

        Args:
            probabilities: digests, by title, of defenses that are run although they return probabilities.
        """
        for entry in self._entries:
            if probabilities:
                entry["probabilities"] = dict(probabilities)
            update_manifest(self._store, self._facts, entry)
        self._written = True

    def finish(self, seconds: float) -> None:
        """Write the end of the run.

        Args:
            seconds: that it took.
        """
        for entry in self._entries:
            entry["finished"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            entry["seconds"] = round(seconds, 3)
            update_manifest(self._store, self._facts, entry)
