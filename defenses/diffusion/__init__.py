"""Diffusion models as purifiers: SDEs, score networks, samplers, likelihood, and loaders of published weights."""
