"""Detectors of adversarial images: each a score beside any defense (`defenses.core.detector`)."""
