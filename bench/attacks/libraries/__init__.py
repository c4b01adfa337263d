"""Adapters of AutoAttack, Foolbox and torchattacks, whose code runs unchanged."""
