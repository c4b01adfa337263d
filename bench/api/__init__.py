"""The Python entry points: `benchmark`, `run_preset`, `judge`, `certify` and `clean_accuracy`."""
