"""The Python entry points."""
