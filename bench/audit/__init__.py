"""Audits: checks that an evaluation of a defense can be trusted."""
