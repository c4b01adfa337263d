"""A document of sections, and its writers: Markdown, HTML, JSON, and PDF by Typst."""
