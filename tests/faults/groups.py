"""Import the modules of the cases."""

import importlib

from faults.catalogue import GROUPS


def load() -> None:
    """Import them all, which fills the catalogue."""
    for group in GROUPS:
        importlib.import_module(f"faults.cases_{group}")
