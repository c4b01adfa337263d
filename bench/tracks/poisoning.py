"""Attacks on training data, an axis of its own: poison, train, and see what the trigger does to the trained model."""
