"""Diffusion purifiers: build, samplers, likelihood."""
