"""The modules of the cases, in the order of the page."""

import importlib

GROUPS = (
    *("killed", "interrupted", "downloads", "disk", "damaged", "schema", "clock", "numbers", "models", "attacks"),
    *("hostile", "code"),
)


def load() -> None:
    """Import them all, which fills the catalogue."""
    for group in GROUPS:
        importlib.import_module(f"faults.cases_{group}")
