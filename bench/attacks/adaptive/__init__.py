"""Adaptive attacks of purebench, made for randomised defenses."""
