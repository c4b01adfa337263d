"""The fault catalogue: what can go wrong, what must happen then, and a test of each."""
