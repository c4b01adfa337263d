"""Reports on results folders: protocol, checklists, numbers, claims, audits, deviations, how to repeat them."""
