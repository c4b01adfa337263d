"""Filters: input transforms of one operation."""
