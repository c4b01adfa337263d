"""Attacks on training data: poison, train, evaluate the trigger."""
