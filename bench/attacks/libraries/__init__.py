"""Attacks of Foolbox, torchattacks and AutoAttack, unchanged."""
