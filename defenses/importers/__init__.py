"""Published checkpoints of other code as weights of ours."""
