"""The command line, one file per command: `add` declares its arguments, `run` returns its exit code."""
