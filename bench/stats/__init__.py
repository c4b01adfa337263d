"""Statistics on numpy arrays: intervals, tests, power, bootstrap; no board, no file."""
