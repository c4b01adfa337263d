"""The Python entry points: `benchmark` and `clean_accuracy`."""
