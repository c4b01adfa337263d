"""From numbers to tables and files: Markdown, LaTeX, HTML, text, CSV, JSON; no arithmetic."""
