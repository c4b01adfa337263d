"""Verification: stored adversarial images judged again."""
