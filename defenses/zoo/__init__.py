"""Model cards, weights, composition and load_model."""
