"""Filters: purifiers of a single operation on the image."""
