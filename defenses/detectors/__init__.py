"""Detectors of adversarial images, and purification of suspected images alone."""
