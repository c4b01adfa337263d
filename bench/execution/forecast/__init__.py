"""Forecast the cost of a run."""
