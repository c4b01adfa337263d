"""Purifiers that are generative models: GAN, autoencoders, joint and implicit energies."""
