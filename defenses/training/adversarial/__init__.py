"""Adversarial training: one frame (`base`), one file for each method's attack and loss."""
