"""Training objectives of networks and generative models."""
