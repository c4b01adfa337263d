"""Generative purifiers: ADP, Langevin dynamics, diffusion, JEM, IGEBM, Defense-GAN, autoencoders."""
