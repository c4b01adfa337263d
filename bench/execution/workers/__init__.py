"""Worker processes: pool, schedule, limits."""
