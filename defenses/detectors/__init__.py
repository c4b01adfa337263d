"""Detectors of adversarial images, and purification gated by a detector."""
