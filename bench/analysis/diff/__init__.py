"""Differences of two runs of a board: cells, rows, images, what their keys depend on, environment, warnings."""
