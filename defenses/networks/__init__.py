"""Networks by kind, and SDEs of diffusion models."""
