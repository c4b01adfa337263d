"""The results folder on disk: parts, manifest, JSON lines, audits; written and read whole or not at all."""
