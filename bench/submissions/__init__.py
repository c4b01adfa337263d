"""Rows that others submit: pack one as a zip, check it without running its code, add it to a board."""
