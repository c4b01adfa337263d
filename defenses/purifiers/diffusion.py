"""Diffusion models as purifiers: SDEs, samplers and likelihood."""
