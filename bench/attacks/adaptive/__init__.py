"""The harness's own attacks, for randomised defenses above all."""
