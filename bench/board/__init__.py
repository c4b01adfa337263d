"""Boards: TOML in, a checked Board with its cells out."""
