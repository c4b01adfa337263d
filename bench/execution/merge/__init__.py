"""Merge the results folders of one board that several machines wrote."""
