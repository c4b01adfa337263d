"""Judge stored results again: verify."""
