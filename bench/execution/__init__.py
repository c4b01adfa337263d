"""Run the cells of a board: cell runner, worker processes, forecasts, progress."""
