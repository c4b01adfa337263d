"""Threat models, views, cells and their keys, aggregations; without torch at import, without files."""
