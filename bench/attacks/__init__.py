"""Attacks by name: libraries unchanged, the harness's own, a user's, a file's."""
