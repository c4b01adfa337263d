"""Run cells: cell runner, worker processes, forecasts, progress."""
