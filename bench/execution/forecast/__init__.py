"""Forecasts: how long a board will take."""
