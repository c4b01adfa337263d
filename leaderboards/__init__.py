"""Boards that come with purebench: one TOML file each."""
