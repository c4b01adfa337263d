"""Data sets by name, with their sources."""
