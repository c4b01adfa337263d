"""Diffusion models as purifiers: samplers, predictions of the network, and likelihood."""
