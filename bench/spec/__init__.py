"""The nouns: threat model, view, cell and its key, aggregation; no torch at import, no files."""
