"""Measure, store and read certificates of gradients."""
