"""What speaks against the numbers of a defense: a failed audit, exact gradients that nothing certifies."""

from __future__ import annotations

from pathlib import Path

from bench.analysis.caveats import MARK as FAILED
from bench.analysis.caveats import failures
from bench.analysis.results import Results
from bench.evaluation.certificates.stored import MARK as UNCERTIFIED
from bench.evaluation.certificates.stored import uncertified
from bench.store.manifest import read_manifest


def doubts(folder: Path, results: Results) -> dict[str, list[str]]:
    """Label of a defense -> what speaks against its rows, with the marks of the tables.

    Args:
        folder: the results folder.
        results: what `read_results` gave of it.

    Raises:
        UserError: its audits are damaged.
    """
    manifest = read_manifest(folder)
    said: dict[str, list[str]] = {str(label): [] for label in results.cells["defense"].unique()}
    for title, checks in failures(folder, manifest).items():
        label = title.partition(" (training seed")[0]
        said.setdefault(label, []).append(f"{FAILED} {title} fails the audit: {', '.join(checks)}")
    for label, reason in uncertified(folder, results.cells, manifest).items():
        said.setdefault(label, []).append(f"{UNCERTIFIED} {label}: exact gradients that nothing certifies ({reason})")
    return said
