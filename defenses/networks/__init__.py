"""Networks by kind, and the SDEs."""
