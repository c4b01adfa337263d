"""Evaluations beside evasion attacks: corruptions, randomised smoothing, poisoning."""
