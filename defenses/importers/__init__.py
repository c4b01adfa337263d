"""Importers of published checkpoints of other code."""
