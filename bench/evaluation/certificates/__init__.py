"""Certificates of gradients: measured, stored, read."""
